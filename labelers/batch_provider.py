"""The provider's side of batches: files, batches and answer files, through the ``openai`` package."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from labelers.batch_files import Line, read_lines
from labelers.openai_api import _RETRYABLE_STATUS, OpenAICompatible
from labelers.teachers import RetryableError, TeacherError

if TYPE_CHECKING:
    import openai

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

TOKEN_FIELD = "curate_token"
_FINISHED = frozenset({"completed", "failed", "expired", "cancelled"})
_ATTEMPTS = 8
_UPLOAD = "upload the requests of a batch"
_LONGEST_BACKOFF = 60.0
#: Looks at the provider's list before a batch is believed not to exist.
_LOOKS = 3
#: How much later than ours the provider's clock may be set, in seconds.
_CLOCK_SLACK = 86_400.0


@dataclass(frozen=True, kw_only=True)
class BatchState:
    """A batch as the provider describes it at one moment."""

    id: str
    status: str
    total: int
    completed: int
    failed: int
    output_file: str | None
    error_file: str | None
    errors: tuple[tuple[str, str], ...]

    def news(self) -> dict[str, Any]:
        """What is told of it while it is under way."""
        return {
            "batch": self.id,
            "status": self.status,
            "total": self.total,
            "completed": self.completed,
            "failed": self.failed,
        }

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in _FINISHED

    @property
    def without_files(self) -> bool:
        """Whether it says that requests were answered and not yet in which file."""
        answered = self.completed + self.failed > 0
        return self.status == "completed" and answered and not (self.output_file or self.error_file)

    @property
    def queue_full(self) -> bool:
        """Whether it failed because too many tokens are enqueued at the provider already."""
        return self.status == "failed" and any(
            code == "token_limit_exceeded" or "enqueued token" in words.lower()
            for code, words in self.errors
        )


class BatchProvider:
    """Talks to the Files and Batches endpoints of the server that a teacher names.

    Failed calls are made again a bounded number of times, and a batch is never created again before
    the provider's list was searched for it.
    """

    def __init__(self, teacher: OpenAICompatible, sleep: Sleep) -> None:
        import openai

        self._errors = openai
        self._teacher = teacher
        self._sleep = sleep
        self._client: openai.AsyncOpenAI = openai.AsyncOpenAI(
            api_key=teacher._key or "none",
            base_url=teacher.base_url,
            max_retries=0,
            timeout=openai.Timeout(teacher.read_timeout, connect=teacher.connect_timeout),
        )
        # The user's environment speaks of OpenAI; the server may be one that a recipe names.
        self._client.organization = self._client.project = self._client.admin_api_key = None
        self._client._custom_headers = {}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def upload(self, name: str, content: bytes) -> str:
        """Upload a file of requests and return its id. One that was uploaded twice costs nothing."""

        async def call() -> str:
            made = await self._client.files.create(file=(name, content), purpose="batch")
            return self._id(made)

        return await self._call(_UPLOAD, call)

    async def create(
        self, file_id: str, path: str, token: str, *, since: float, look_first: bool
    ) -> str:
        """Create a batch, or find the one that bears our token, and return its id.

        Args:
            file_id: The uploaded file.
            path: Path below the API's root.
            token: Written into the batch's metadata.
            since: When the batch can have been created at the earliest, in seconds since 1970.
            look_first: Whether an earlier attempt may have created it.

        Raises:
            TeacherError: If the provider refuses it, or does not answer.
        """
        failures = 0
        while True:
            if look_first:
                found = await self.find(token, since=since)
                if found is not None:
                    return found
            try:
                made = await self._client.batches.create(
                    completion_window="24h",
                    endpoint=f"/v1/{path}",  # type: ignore[arg-type]
                    input_file_id=file_id,
                    metadata={TOKEN_FIELD: token},
                )
                return self._id(made)
            except (self._errors.APIError, RetryableError) as error:
                problem = self._problem("create a batch", error)
            failures += 1
            await self._pause(problem, failures)
            # The answer may have been lost and the batch made.
            look_first = True

    async def find(self, token: str, *, since: float) -> str | None:
        """The id of the batch with that token in its metadata, or None if there is none."""

        async def look() -> str | None:
            try:
                async for batch in self._client.batches.list(limit=100):
                    if (batch.metadata or {}).get(TOKEN_FIELD) == token:
                        return self._id(batch)
                    if batch.created_at < since - _CLOCK_SLACK:
                        break  # The list begins with the newest.
            except (AttributeError, TypeError) as error:  # an HTML page, for instance
                raise RetryableError(f"the answer is no list of batches: {error}") from error
            return None

        for number in range(1, _LOOKS + 1):
            found = await self._call("list the batches", look)
            if found is not None:
                return found
            if number < _LOOKS:
                await self._sleep(2.0**number)
        return None

    async def look(self, batch_id: str) -> BatchState:
        """How a batch stands."""

        async def call() -> BatchState:
            batch = await self._client.batches.retrieve(batch_id)
            self._id(batch)
            counts = batch.request_counts
            errors = (batch.errors.data if batch.errors else None) or []
            return BatchState(
                id=batch.id,
                status=str(getattr(batch, "status", "")),
                total=counts.total if counts else 0,
                completed=counts.completed if counts else 0,
                failed=counts.failed if counts else 0,
                output_file=batch.output_file_id,
                error_file=batch.error_file_id,
                errors=tuple(
                    (error.code or "", self._shown(error.message or "")) for error in errors
                ),
            )

        return await self._call(f"look after batch {batch_id}", call)

    async def lines(self, state: BatchState) -> dict[str, Line]:
        """The answers of a finished batch by custom id, errors included."""
        lines: dict[str, Line] = {}
        for file_id in (state.output_file, state.error_file):
            if file_id is not None:
                lines.update(await self._download(file_id))
        return lines

    async def _download(self, file_id: str) -> dict[str, Line]:
        async def call() -> dict[str, Line]:
            response = await self._client.files.content(file_id)
            try:
                return read_lines(self._teacher._strike(response.content))
            except ValueError as error:
                raise RetryableError(f"file {file_id} is not a file of answers: {error}") from error

        return await self._call(f"download file {file_id}", call)

    async def _call(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        failures = 0
        while True:
            try:
                return await call()
            except (self._errors.APIError, RetryableError) as error:
                problem = self._problem(what, error)
            failures += 1
            await self._pause(problem, failures)

    async def _pause(self, problem: TeacherError | RetryableError, failures: int) -> None:
        """Wait before the next attempt, or raise where there is to be none."""
        if isinstance(problem, TeacherError):
            raise problem
        if failures >= _ATTEMPTS:
            raise TeacherError(
                f"{problem} ({failures} attempts). Batches that were made go on at the provider and are "
                "in the journal: run the same command again later"
            )
        await self._sleep(problem.retry_after or min(_LONGEST_BACKOFF, 2.0 ** (failures - 1)))

    def _problem(self, what: str, error: Exception) -> TeacherError | RetryableError:
        """What a failed call means. The error itself is not passed on: it may quote the key."""
        status = getattr(error, "status_code", None)
        if isinstance(error, RetryableError) or status is None:
            return RetryableError(f"could not {what} ({self._words(error)})")
        if status in (401, 403):
            return self._teacher._refused(status, self._words(error).encode())
        url = self._teacher.base_url
        if status == 404 and what == _UPLOAD:
            return TeacherError(
                f"{url} answers HTTP 404 to the attempt to {what} ({self._words(error)}): it offers no "
                "Batch API, so ask it directly (in a recipe, without teacher.batch), or correct "
                "teacher.base_url"
            )
        if status == 404:
            return TeacherError(
                f"{url} answers HTTP 404 to the attempt to {what} ({self._words(error)}): it offers no "
                "Batch API, or the key is of another project than the one that made it. To ask the "
                "requests again, remove the batch's file from the journal"
            )
        problem = f"could not {what} (HTTP {status}: {self._words(error)})"
        if getattr(error, "code", None) == "insufficient_quota":
            return TeacherError(f"{problem}: add credit to the account, and run the command again")
        if status in _RETRYABLE_STATUS or status < 400:
            headers = getattr(getattr(error, "response", None), "headers", {})
            return RetryableError(problem, retry_after=_seconds(headers.get("Retry-After")))
        return TeacherError(f"{url}: {problem}")

    def _words(self, error: Exception) -> str:
        """What the server said, or else what went wrong on the way to it."""
        body = getattr(error, "body", None)
        if isinstance(body, Mapping) and body.get("message"):
            return self._shown(body["message"])
        cause = error.__cause__
        return self._shown(f"{error} {cause}" if cause is not None and str(cause) else error)

    def _shown(self, words: object) -> str:
        """Words of the server, shortened, without the key should they quote it."""
        return self._teacher._message(self._teacher._strike(str(words).encode("utf-8", "replace")))

    def _id(self, made: object) -> str:
        """The id of what the provider made; an HTML page in its place has none."""
        found = getattr(made, "id", None)
        if not isinstance(found, str) or not found:
            raise RetryableError(
                f"the answer holds no id: {self._teacher._message(str(made).encode())}"
            )
        return found


def _seconds(value: str | None) -> float | None:
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None
