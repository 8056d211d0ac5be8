"""What a failed build is told as."""

from __future__ import annotations

from gemel.errors import Failed, StepFailed
from gemel.image.build import _explain
from gemel.image.reference import parse


def test_a_file_that_is_not_in_the_context_is_told_in_dockers_words() -> None:
    tail = [
        "STEP 2/2: COPY nothere /x",
        'Error: building at STEP "COPY nothere /x": checking on sources under "/r/tmp/build-1/'
        'context": copier: stat: "/nothere": no such file or directory',
    ]
    error = _explain(Failed("it failed"), tail, [], None)
    assert error.brief == (
        "COPY failed: file not found in build context or excluded by .dockerignore: "
        "stat nothere: file does not exist"
    )


def test_a_step_that_fails_has_its_exit_code_also_beside_a_cache() -> None:
    tail = ['Error: building at STEP "RUN false": while running runtime: exit status 3']
    error = _explain(Failed("it failed"), tail, [], parse("r.example/cache"))
    assert isinstance(error, StepFailed) and error.code == 3
