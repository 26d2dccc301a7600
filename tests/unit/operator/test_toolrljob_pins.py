"""What a job keeps from its start on: names that fit and are its own, images by their digest, the contract."""

import pytest
from thinkimg_operator.toolrljob.attempts import JobSeen
from thinkimg_operator.toolrljob.pins import digest_in
from thinkimg_operator.toolrljob.render import ContractError, job_name, names_of, render_attempt

from tests.support.operator.toolrljob_world import START, PretendCluster, make_job
from thinkimg.api import Pinned, StageStatus, ToolRLJobStatus

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("image", "image_id", "found"),
    [
        ("ghcr.io/thinkimg/trainer:1", f"ghcr.io/thinkimg/trainer@{DIGEST}", DIGEST),
        ("ghcr.io/thinkimg/trainer", f"docker-pullable://ghcr.io/thinkimg/trainer@{DIGEST}", DIGEST),
        ("localhost:5000/trainer:1", f"localhost:5000/trainer@{DIGEST}", DIGEST),
        ("trainer:1", f"docker.io/library/trainer@{DIGEST}", DIGEST),
        ("team/trainer", f"docker.io/team/trainer@{DIGEST}", DIGEST),
        ("trainer:1", f"docker.io/library/import-2026-01-01@{DIGEST}", ""),  # loaded into a node by hand
        ("trainer:1", DIGEST, ""),  # of its configuration: nothing can be pulled by it
        ("ghcr.io/thinkimg/trainer:1", f"mirror.example.com/thinkimg/trainer@{DIGEST}", ""),
        ("trainer:1", "", ""),
    ],
)
def test_a_digest_counts_if_the_image_can_be_pulled_by_it(image: str, image_id: str, found: str) -> None:
    assert digest_in(image_id, image) == found


def test_names_are_of_one_job_and_leave_room_for_the_pods_index() -> None:
    job = make_job()
    job.metadata.name = "j" * 30
    name = job_name(job, "s" * 40, 1234)
    assert len(f"{name}-9999") <= 63
    assert name.endswith(f"-{'s' * 40}-1234-d3m00")
    other = make_job()
    other.metadata.uid = "another"
    assert names_of(other).service != names_of(make_job()).service
    assert job_name(other, "s1", 1) != job_name(make_job(), "s1", 1)


def test_a_job_that_was_started_before_anything_was_noted_keeps_what_its_last_attempt_has() -> None:
    cluster = PretendCluster(make_job())
    running = StageStatus(name="s1", state="Running", attempt=1, job_name="demo-s1-1")
    cluster.job.status = ToolRLJobStatus(start_time=START, stages=[running, StageStatus(name="s2")])
    cluster.jobs["demo-s1-1"] = JobSeen("demo-s1-1", "u", "s1", 1, START, image="trainer:0", contract=1)
    status = cluster.decide().status
    assert status.pinned is not None
    assert (status.pinned.image, status.pinned.contract_version, status.pinned.operator_version) == ("trainer:0", 1, "")
    assert status.names is not None
    assert (status.names.service, status.names.manifest) == ("demo", "demo-manifest")


def test_an_attempt_speaks_the_contract_of_the_first_one_or_is_not_made() -> None:
    job = make_job()
    job.status = ToolRLJobStatus(pinned=Pinned(image="trainer:1", contract_version=99))
    with pytest.raises(ContractError, match="speaks version 99 of the contract"):
        render_attempt(job, "s1", 2, [], "trainer:2")
