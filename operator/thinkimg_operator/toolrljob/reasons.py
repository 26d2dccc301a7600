"""Every word that the operator says about a ToolRLJob to programs: conditions with their reasons, and events."""

from __future__ import annotations

from collections.abc import Mapping

REASONS: Mapping[str, Mapping[str, str]] = {
    "Accepted": {
        "Valid": "The manifest is valid.",
        "Invalid": "A field of the spec is wrong; the message names it and what would be right.",
        "NotSupported": "The spec asks for something that this version does not have.",
        "Refused": "The API server, a quota or an admission policy refuses an object of the job, or its name is taken; "
        "it is tried again every 30 s.",
    },
    "ToolsReady": {
        "NoneNeeded": "The job uses no tools.",
        "AllAvailable": "Every VisionTool of `spec.tools` is Available, as far as was seen when a stage began.",
        "ToolNotFound": "A VisionTool of `spec.tools` does not exist in the namespace.",
        "ToolNotAvailable": "A VisionTool is not Available yet; the message says for which is waited, and why.",
    },
    "PodsReady": {
        "AllReady": "All pods of the current stage are ready, or have succeeded.",
        "NotStarted": "Nothing is started until the job is accepted.",
        "WaitingForTools": "Pods are not made before the tools are Available.",
        "ClaimNotFound": "A PersistentVolumeClaim that the job names does not exist.",
        "CodeNotFound": "The ConfigMap of `spec.code` does not exist.",
        "WaitingForQuota": "The attempt's Job is suspended: its queue (Kueue) has not admitted it.",
        "Starting": "Pods are being made, scheduled and started.",
        "Unschedulable": "A pod fits on no node: too few GPUs, CPUs or memory, or its volume cannot be bound.",
        "ImagePullFailed": "A pod's image cannot be pulled: wrong name, or a secret is missing.",
        "ContainerNotStarted": "A pod's container cannot be made or started: a Secret, a key, the command is missing.",
        "NodeLost": "The node of a pod is not heard of; the attempt ends after `spec.failurePolicy.nodeLostSeconds`.",
        "Restarting": "An attempt has ended; the next one starts when its last pod is gone and the pause is over.",
        "Suspended": "No pod is wanted while `spec.suspend` is true.",
        "Finished": "The job is over.",
    },
    "Suspended": {
        "Suspended": "`spec.suspend` is true; the message counts the pods that have yet to end.",
        "NotSuspended": "`spec.suspend` is false, or the job is over.",
    },
    "Complete": {
        "AllStagesSucceeded": "The job has finished well. It stays so.",
        "StagesLeft": "Stages are left.",
    },
    "Failed": {
        "NotFailed": "Nothing has ended the job.",
        "UserError": "A stage ended with exit code 2: something in the manifest or the data is wrong.",
        "FailedByRule": "A rule of `spec.failurePolicy` ended the job.",
        "RestartsExhausted": "An attempt failed, and `spec.failurePolicy.maxRestarts` are used.",
        "ActiveDeadlineExceeded": "The job took longer than `spec.activeDeadlineSeconds`, suspended time not counted.",
        "StartDeadlineExceeded": "Tools or pods were not ready within `spec.startDeadlineSeconds`.",
    },
}
"""Every condition with every reason. `docs/reference/conditions.md` is made of it."""

EVENTS: Mapping[str, str] = {
    "StageStarted": "A stage begins.",
    "StageSucceeded": "A stage has finished well.",
    "AttemptFailed": "A pod has failed, was deleted or is lost, and the attempt ends with it; the note says why.",
    "StageRestarting": "A stage starts again, as another attempt.",
    "PodForceDeleted": "A pod that should be gone is removed by force: its node does not confirm its end.",
    "SidecarsEnded": "A stage has finished well on every rank, and other containers of its pods ran on for 60 s: the "
    "Job is deleted.",
    "NotUnderstood": "A stage's image speaks a version of the contract that the operator does not know.",
    "Suspended": "The job is suspended.",
    "Resumed": "The job goes on after it was suspended.",
    "Refused": "The job is not accepted; the note says why.",
    "Complete": "The job has finished well.",
    "Failed": "The job has failed; the note says why.",
}
"""Events, each told once for a transition."""
