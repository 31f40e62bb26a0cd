"""Reasons of failed models, read from real lines of tritonserver 2.51's log."""

from __future__ import annotations

from triton_router.serving.launcher.report import FailureReport

BAD_IMPORT = (
    "E1121 05:54:32.180340 12353 model_lifecycle.cc:642] \"failed to load 'bad' version 1: Internal: "
    "ModuleNotFoundError: No module named 'nope'\\n\\nAt:\\n  /r/bad/1/model.py(1): <module>\\n"
    '  <frozen importlib._bootstrap>(241): _call_with_frames_removed\\n"\n'
    "I1121 05:54:32.180396 12353 model_lifecycle.cc:777] \"failed to load 'bad'\"\n"
    'I1121 05:54:32.181869 12353 server.cc:321] "Timeout 30: Found 0 model versions that have in-flight inferences"\n'
    "error: creating server: Internal - failed to load all models\n"
)
NO_FILE = (
    "I1121 05:54:48.780706 12484 pb_stub.cc:2105]  Failed to preinitialize Python stub: "
    "Python model file not found in '/r/worse/1/model.py'\n"
)
PORT_TAKEN = (
    'E1121 07:47:33.061031 29631 server.cc:241] "CudaDriverHelper has not been initialized."\n'
    "Error: Failed to initialize NVML\n"
    "E1121 07:47:34.396504099   29631 chttp2_server.cc:1060]                UNKNOWN:No address added out of total 1 "
    "resolved for '127.0.0.1:28765' {created_time:\"2026-11-21T07:47:34.396456708+00:00\", children:[]}\n"
    'E1121 07:47:34.399940 29631 main.cc:245] "failed to start GRPC service: Unavailable - '
    "Socket '127.0.0.1:28765' already in use \"\n"
)


def fed(text: str) -> FailureReport:
    """Return a report that has read this log."""
    report = FailureReport()
    for line in text.splitlines(keepends=True):
        report.feed(line.encode())
    return report


def test_a_reason_is_one_line_without_the_traceback() -> None:
    """The exception stays, its frames go, and the same failure is not counted twice."""
    report = fed(BAD_IMPORT)
    assert report.failures == {"bad": "Internal: ModuleNotFoundError: No module named 'nope'"}
    assert not report.stuck


def test_a_fatal_error_is_kept_for_failures_without_a_model() -> None:
    """What the server says last is what a user needs when no model is to blame."""
    assert fed(BAD_IMPORT).errors == ["creating server: Internal - failed to load all models"]


def test_only_the_cause_remains_of_a_start_without_a_gpu_on_a_taken_port() -> None:
    """Not what every machine without a GPU logs, and not the gRPC library's dump of the same failure."""
    cause = "failed to start GRPC service: Unavailable - Socket '127.0.0.1:28765' already in use"
    assert fed(PORT_TAKEN).errors == [cause]
    assert fed(PORT_TAKEN + PORT_TAKEN).errors == [cause]


def test_a_model_without_a_version_is_a_failed_model() -> None:
    """This refusal comes before any version is loaded, in words of its own."""
    reason = "at least one version must be available under the version policy of model 'm'"
    log = f"E1121 07:49:19.573818 2255 model_repository_manager.cc:724] \"failed to load model 'm': {reason}\"\n"
    assert fed(log).failures == {"m": reason}


def test_the_cause_comes_before_what_followed_from_it() -> None:
    """Triton says last that it could not be made; why stands in the error before."""
    cause = 'E1121 05:54:32.180340 12353 model_repository_manager.cc:1335] "Poll failed: no such directory"\n'
    consequence = "error: creating server: Internal - failed to load all models\n"
    assert fed(cause + consequence).errors == [
        "Poll failed: no such directory",
        "creating server: Internal - failed to load all models",
    ]


def test_a_missing_model_file_is_recognised_as_a_hang() -> None:
    """2.51 waits for ever after this line: the launcher must know the model and that nothing more will come."""
    report = fed(NO_FILE)
    assert report.stuck
    assert report.failures == {"worse": "Python model file not found in '/r/worse/1/model.py'"}


def test_bytes_that_are_not_text_do_no_harm() -> None:
    """A model may print anything."""
    report = FailureReport()
    report.feed(b"\xff\xfe\n")
    assert report.failures == {}


def test_models_that_are_still_loading_are_known() -> None:
    """From the line that begins a load to the one that ends it, well or not."""
    begun = 'I1121 05:54:48.737419 12471 model_lifecycle.cc:472] "loading: {}:1"\n'
    ended = "I1121 05:54:49.481779 5949 model_lifecycle.cc:839] \"successfully loaded '{}'\"\n"
    log = begun.format("good") + begun.format("bad") + begun.format("slow") + ended.format("good") + BAD_IMPORT
    assert fed(log).loading == ["slow"]
