"""Changes that break the valid job and tool of manifest_examples.py, and what the loader says about each."""

from __future__ import annotations

from typing import Any

from tests.support.api.manifest_examples import Change, setting, without

STAGES = "spec.stages"


def stage(**fields: Any) -> Change:
    """A change that appends a stage before the table."""
    return lambda document: document["spec"]["stages"].insert(3, fields)


JOB_REFUSALS: list[tuple[str, Change, str]] = [
    # fields and types
    ("an unknown field", setting("spec.modle", {}), 'spec.modle: there is no field "modle". Did you mean "model"?'),
    (
        "an unknown field deep inside",
        setting("spec.stages.1.sft.learning_rate", 0.1),
        'spec.stages[1].sft.learning_rate: there is no field "learning_rate". Did you mean "learningRate"?',
    ),
    (
        "a field like no other",
        setting("spec.model.zzz", 1),
        'spec.model.zzz: there is no field "zzz". Known are: uri, revision, minPixels, maxPixels, imageCacheSize, ',
    ),
    ("a missing field", without("spec.model"), "spec.model: it is missing. Add it. The model to start from."),
    ("no metadata", without("metadata"), "metadata: it is missing. Add it."),
    ("no name", without("metadata.name"), "metadata.name: it is missing. Add it. Name of the job"),
    ("a string for an integer", setting("spec.seed", "one"), 'spec.seed: expected an integer, got "one". Seed of'),
    ("a number as a string", setting("spec.seed", "1"), 'spec.seed: expected an integer, got "1".'),
    ("a fraction for an integer", setting("spec.seed", 1.5), "spec.seed: expected an integer, got 1.5."),
    ("a boolean for an integer", setting("spec.seed", True), "spec.seed: expected an integer, got true."),
    ("nothing for what is needed", setting("spec.model", None), "spec.model: it is missing. Add it."),
    ("a word for a boolean", setting("spec.suspend", "no"), 'spec.suspend: expected true or false, got "no".'),
    ("a mapping for a list", setting("spec.tools", {"name": "ocr"}), "spec.tools: expected a list, got a mapping."),
    ("a list for a mapping", setting("spec.model", []), "spec.model: expected a mapping, got a list of 0."),
    (
        "a number below its bound",
        setting("spec.checkpoint.keep", 0),
        "spec.checkpoint.keep: it should be greater than or",
    ),
    (
        "a word that is not a choice",
        setting("spec.agent.format", "hermess"),
        'spec.agent.format: expected openthinkimg or hermes, got "hermess". Did you mean "hermes"?',
    ),
    (
        "an infinite number",
        setting("spec.stages.2.grpo.beta", float("inf")),
        "spec.stages[2].grpo.beta: expected a finite number, got inf.",
    ),
    # names
    (
        "a long job name",
        setting("metadata.name", "a" * 31),
        f'metadata.name: "{"a" * 31}" (31 characters) is not a valid name. Use 1 to 30 of a-z, 0-9',
    ),
    ("a job name in capitals", setting("metadata.name", "Demo"), 'metadata.name: "Demo" (4 characters) is not a valid'),
    ("a job name that begins with a digit", setting("metadata.name", "1a"), "metadata.name: "),
    ("a long stage name", setting("spec.stages.1.name", "s" * 17), "spec.stages[1].name: "),
    (
        "the reserved stage name",
        setting("spec.stages.0.name", "base"),
        'spec.stages[0].name: "base" is reserved: it names the model before any stage. Use another name.',
    ),
    ("two stages of one name", setting("spec.stages.1.name", "cold"), 'spec.stages[1].name: "cold" is there twice.'),
    ("a tool twice", setting("spec.tools", [{"name": "ocr"}] * 2), 'spec.tools[1].name: "ocr" is there twice.'),
    ("a seed twice", setting("spec.seeds", [1, 2, 1]), "spec.seeds[2]: 1 is there twice."),
    # addresses
    (
        "an unknown preset",
        setting("spec.model.uri", "preset://tinny"),
        'spec.model.uri: there is no preset "tinny". Did you mean "tiny"?',
    ),
    (
        "a model over https",
        setting("spec.model.uri", "https://host/v1#x"),
        'spec.model.uri: "https://host/v1#x" is not understood. Write hf://org/name, pvc://claim/path or preset://tiny',
    ),
    (
        "a model made of charts",
        setting("spec.model.uri", "charts://"),
        'spec.model.uri: "charts://" is not understood.',
    ),
    ("data over https", setting("spec.data.train.uri", "https://a/b"), 'spec.data.train.uri: "https://a/b" is not'),
    ("data at an absolute path", setting("spec.data.train.uri", "/a"), 'spec.data.train.uri: "/a" is not understood.'),
    (
        "data outside the storage root",
        setting("spec.data.train.uri", "a/../../b"),
        'spec.data.train.uri: "a/../../b" leaves the storage root.',
    ),
    (
        "a revision of a preset",
        setting("spec.model.revision", "main"),
        'spec.model.revision: "preset://tiny" has no revisions. Remove it; hf:// repositories have them.',
    ),
    (
        "a revision of charts",
        setting("spec.data.test.revision", "main"),
        "spec.data.test.revision: ",
    ),
    # stages
    ("no stages", setting(STAGES, []), "spec.stages: the list should have at least 1 item"),
    (
        "thirteen stages",
        setting(STAGES, [{"name": f"s{i}", "type": "SFT", "sft": {}} for i in range(13)]),
        "spec.stages: the list should have at most 12 items",
    ),
    (
        "a stage that starts from a later one",
        setting("spec.stages.1.from", "rl"),
        'spec.stages[1].from: "rl" is a later stage. Name an earlier stage of type SFT or GRPO, or base: base.',
    ),
    ("a stage that starts from itself", setting("spec.stages.2.from", "rl"), 'spec.stages[2].from: "rl" is this stage'),
    (
        "a stage that starts from data",
        setting("spec.stages.2.from", "cold"),
        'spec.stages[2].from: "cold" is of type Synthesize. Name an earlier stage of type SFT or GRPO, or base:',
    ),
    (
        "a stage that starts from nowhere",
        setting("spec.stages.2.from", "stf"),
        'spec.stages[2].from: there is no stage "stf". Did you mean "sft"?',
    ),
    (
        "an evaluation that starts from a model",
        setting("spec.stages.3.from", "rl"),
        "spec.stages[3].from: a stage of type Evaluate starts from no model. Remove it and use evaluate.models.",
    ),
    (
        "the block of another type",
        setting("spec.stages.1.grpo", {}),
        "spec.stages[1].grpo: a stage of type SFT has no grpo. Remove it, or use type: GRPO.",
    ),
    (
        "no block",
        without("spec.stages.1.sft"),
        "spec.stages[1].sft: a stage of type SFT needs sft. Add sft: {…} with its settings.",
    ),
    ("an unknown type", setting("spec.stages.1.type", "PPO"), "spec.stages[1].type: expected Synthesize, SFT, GRPO or"),
    (
        "two lengths",
        setting("spec.stages.1.sft.epochs", 1),
        "spec.stages[1].sft: more than one of epochs, maxSteps, maxTokens and maxSeconds is given. Keep the one "
        "that is meant.",
    ),
    (
        "a length from a later stage",
        setting("spec.stages.1.sft", {"maxSeconds": {"fromStage": "rl"}}),
        'spec.stages[1].sft.maxSeconds.fromStage: "rl" is a later stage. Name an earlier stage: cold.',
    ),
    (
        "as many tokens as a stage that trains nothing",
        setting("spec.stages.1.sft", {"maxTokens": {"fromStage": "cold"}}),
        'spec.stages[1].sft.maxTokens.fromStage: "cold" is of type Synthesize. '
        "There is no earlier stage of type SFT or GRPO yet.",
    ),
    (
        "trajectories from a training stage",
        stage(name="more", type="SFT", sft={"dataFrom": "sft"}),
        'spec.stages[3].sft.dataFrom: "sft" is of type SFT. Name an earlier stage of type Synthesize: cold.',
    ),
    (
        "SFT with nothing to learn from",
        setting(STAGES, [{"name": "sft", "type": "SFT", "sft": {}}]),
        "spec.stages[0].sft: charts:// has questions but no trajectories to learn from. Put a stage of type Synthesize",
    ),
    (
        "a batch that two processes cannot share",
        setting("spec.stages.1", {"name": "sft", "type": "SFT", "nodes": 3, "sft": {"batchSize": 4}}),
        "spec.stages[1].sft.batchSize: 4 cannot be shared equally by 3 processes (nodes × procsPerNode). Use",
    ),
    (
        "groups that would straddle processes",
        setting("spec.stages.2.procsPerNode", 8),
        "spec.stages[2].grpo.promptsPerStep: 4 cannot be shared equally by 8 processes",
    ),
    (
        "passes that do not divide the batch",
        setting("spec.stages.1.sft.args", {"gradient_accumulation_steps": 3}),
        "spec.stages[1].sft.args.gradient_accumulation_steps: 4 rows of a process cannot be split into 3 passes.",
    ),
    (
        "passes that do not divide a process's rollouts",
        setting("spec.stages.2.grpo", {"promptsPerStep": 4, "microBatch": 5}),
        "spec.stages[2].grpo.microBatch: 32 rows of a process cannot be split into passes of 5. Use a divisor of 32.",
    ),
    (
        "passes that are cut twice",
        setting("spec.stages.2.grpo", {"microBatch": 8, "args": {"gradient_accumulation_steps": 4}}),
        "spec.stages[2].grpo.microBatch: microBatch and args.gradient_accumulation_steps both say how a step is cut",
    ),
    (
        "a row without a stage",
        setting("spec.stages.3.evaluate.models", ["base", "rll"]),
        'spec.stages[3].evaluate.models[1]: there is no stage "rll". Did you mean "rl"?',
    ),
    (
        "a row twice",
        setting("spec.stages.3.evaluate.models", ["base", "base"]),
        'spec.stages[3].evaluate.models[1]: "base" is there twice.',
    ),
    (
        "no rows",
        setting("spec.stages.3.evaluate.models", []),
        "spec.stages[3].evaluate.models: the list should have at",
    ),
    (
        "changed pictures for nobody",
        setting("spec.stages.3.evaluate.controlScope", "all"),
        "spec.stages[3].evaluate.controlScope: it says for whom pictures are changed, and nothing changes them. Give",
    ),
    (
        "no pictures for tools alone",
        setting("spec.stages.3.evaluate", {"models": ["sft"], "control": "none", "controlScope": "tools"}),
        "spec.stages[3].evaluate.controlScope: tools without a picture can do nothing. Use control grey or other",
    ),
    (
        "changed pictures for tools that a model has not",
        lambda document: (
            setting("spec.stages.2.grpo.toolUse", "Disabled")(document),
            setting("spec.stages.3.evaluate.control", "grey")(document),
            setting("spec.stages.3.evaluate.controlScope", "tools")(document),
        ),
        "spec.stages[3].evaluate.controlScope: rl: the model has no tools, whose pictures could be changed. Use the",
    ),
    (
        "an unknown control",
        setting("spec.stages.3.evaluate.control", "gray"),
        'spec.stages[3].evaluate.control: expected grey, other or none, got "gray". Did you mean "grey"?',
    ),
    (
        "a split without data",
        setting("spec.stages.3.evaluate.split", "validation"),
        "spec.stages[3].evaluate.split: there is no data.validation. Add spec.data.validation, or evaluate",
    ),
    (
        "tools wanted and none given",
        setting("spec.tools", []),
        'spec.tools: stage "cold" calls tools, but there are none. Name VisionTools in spec.tools, or',
    ),
    # planner and rewards
    (
        "a model planner without a model",
        setting("spec.stages.0.synthesize.planner", {"type": "Model"}),
        "spec.stages[0].synthesize.planner.model: a planner of type Model has no model. Give baseUrl and name of the",
    ),
    (
        "a scripted planner with a model",
        setting("spec.stages.0.synthesize.planner", {"model": {"baseUrl": "http://h/v1", "name": "m"}}),
        "spec.stages[0].synthesize.planner.model: a planner of type Scripted asks no model.",
    ),
    (
        "a model planner with chains",
        setting(
            "spec.stages.0.synthesize.planner",
            {"type": "Model", "model": {"baseUrl": "http://h/v1", "name": "m"}, "chains": {"ocr": 1}},
        ),
        "spec.stages[0].synthesize.planner.chains: a planner of type Model plans by itself.",
    ),
    (
        "chains that all weigh nothing",
        setting("spec.stages.0.synthesize.planner", {"chains": {"ocr": 0}}),
        "spec.stages[0].synthesize.planner.chains: all weights are 0. Give at least one chain a weight above 0.",
    ),
    (
        "a chain that is no chain",
        setting("spec.stages.0.synthesize.planner", {"chains": {"Ocr!": 1}}),
        "spec.stages[0].synthesize.planner.chains",
    ),
    (
        "an endpoint that is no address",
        setting("spec.stages.0.synthesize.planner", {"type": "Model", "model": {"baseUrl": "host:80", "name": "m"}}),
        'spec.stages[0].synthesize.planner.model.baseUrl: "host:80" is not understood. Write an http:// or https://',
    ),
    (
        "an unknown reward",
        setting("spec.stages.2.grpo.rewards", [{"name": "acuracy"}]),
        'spec.stages[2].grpo.rewards[0].name: there is no reward "acuracy". Did you mean "accuracy"? A function of',
    ),
    (
        "a reward twice",
        setting("spec.stages.2.grpo.rewards", [{"name": "format"}, {"name": "format"}]),
        'spec.stages[2].grpo.rewards[1].name: "format" is there twice. Keep one of them.',
    ),
    (
        "a group of one",
        setting("spec.stages.2.grpo.numGenerations", 1),
        "spec.stages[2].grpo.numGenerations: it should be",
    ),
    # environment, storage, failures
    (
        "a reserved environment variable",
        setting("spec.env", [{"name": "MASTER_PORT", "value": "1"}]),
        'spec.env[0].name: "MASTER_PORT" is reserved: ThinkIMG sets it itself. Remove it, or use another name;',
    ),
    (
        "an environment variable twice",
        setting("spec.env", [{"name": "A"}, {"name": "A"}]),
        'spec.env[1].name: "A" is there twice.',
    ),
    (
        "an environment variable with two sources",
        setting("spec.env", [{"name": "A", "value": "1", "valueFrom": {}}]),
        'spec.env[0]: "A" has both value and valueFrom. Keep one of them.',
    ),
    (
        "an environment variable from a secret without a key",
        setting("spec.env", [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]),
        "spec.env[0].valueFrom.secretKeyRef: a secret's name and key are needed.",
    ),
    ("a name with a space", setting("spec.env", [{"name": "A B"}]), 'spec.env[0].name: "A B" is not a name of an'),
    (
        "a claim that exists and is made",
        setting("spec.storage", {"claimName": "runs", "size": "1Gi"}),
        "spec.storage.size: size says how to make a claim, but claimName names one. Remove one of the two.",
    ),
    ("a quantity without quotes", setting("spec.storage", {"size": 1.5}), "spec.storage.size: 1.5 is a number without"),
    ("a size without sense", setting("spec.storage", {"size": "1 GB"}), 'spec.storage.size: "1 GB" is not a quantity.'),
    (
        "a rule that fits nothing",
        setting("spec.failurePolicy.rules", [{"action": "Fail"}]),
        "spec.failurePolicy.rules[0]: the rule fits nothing. Give onExitCodes or onPodReasons.",
    ),
    (
        "a rule for success",
        setting("spec.failurePolicy.rules", [{"action": "Fail", "onExitCodes": {"operator": "In", "values": [0]}}]),
        "spec.failurePolicy.rules[0].onExitCodes.values[0]: it should be greater than or equal to 1, got 0.",
    ),
    (
        "a rule for a stage that is not there",
        setting("spec.failurePolicy.rules", [{"action": "Fail", "stages": ["slf"], "onPodReasons": ["Evicted"]}]),
        'spec.failurePolicy.rules[0].stages[0]: there is no stage "slf". Did you mean "sft"?',
    ),
    (
        "a pause that shrinks",
        setting("spec.failurePolicy", {"backoffSeconds": 60, "maxBackoffSeconds": 30}),
        "spec.failurePolicy.maxBackoffSeconds: maxBackoffSeconds (30) is less than backoffSeconds (60). Raise it.",
    ),
    ("a manager without a domain", setting("spec.managedBy", "me"), "spec.managedBy: "),
]

TOOL_REFUSALS: list[tuple[str, Change, str]] = [
    (
        "an unknown tool",
        setting("spec.tool", "OCRR"),
        'spec.tool: "OCRR" is not a tool of ThinkIMG. Did you mean "OCR"?',
    ),
    (
        "a tool in another spelling",
        setting("spec.tool", "ZoomInSubfigure"),
        'spec.tool: "ZoomInSubfigure" is not a tool of ThinkIMG. Did you mean "ZoominSubplot"?',
    ),
    (
        "a tool like no other",
        setting("spec.tool", "xyz"),
        'spec.tool: "xyz" is not a tool of ThinkIMG. Known are: GroundingDINO, SAM, OCR,',
    ),
    (
        "a custom tool without an image",
        setting("spec.tool", "Custom"),
        "spec.image: a Custom tool has no image. Name an image that serves the wire protocol.",
    ),
    (
        "a custom tool with a backend",
        setting("spec", {"tool": "Custom", "image": "i", "backend": "b"}),
        "spec.backend: a Custom tool has no backends. Remove it; use options or env instead.",
    ),
    ("no tool", without("spec.tool"), "spec.tool: it is missing. Add it. A built-in tool, a tool that"),
    ("fewer than no replicas", setting("spec.replicas", -1), "spec.replicas: it should be greater than or equal to 0"),
    (
        "bounds the wrong way round",
        setting("spec.autoscaling", {"minReplicas": 4, "maxReplicas": 2}),
        "spec.autoscaling: maxReplicas (2) is less than minReplicas (4). Raise maxReplicas or lower minReplicas.",
    ),
    (
        "weights over https",
        setting("spec.weights", {"uri": "https://a/b"}),
        'spec.weights.uri: "https://a/b" is not understood. Write hf://org/name or pvc://claim/path.',
    ),
    ("a secret without a name", setting("spec.auth", {"secretRef": {}}), "spec.auth.secretRef.name: it is missing."),
    (
        "a limit that is no quantity",
        setting("spec.resources", {"limits": {"cpu": "two"}}),
        "spec.resources.limits.cpu: ",
    ),
    (
        "a reserved environment variable",
        setting("spec.env", [{"name": "THINKIMG_KEY"}]),
        'spec.env[0].name: "THINKIMG_KEY" is reserved',
    ),
    ("an environment variable twice", setting("spec.env", [{"name": "A"}, {"name": "A"}]), 'spec.env[1].name: "A" is'),
    (
        "a name that is no label",
        setting("metadata.name", "o.cr"),
        'metadata.name: "o.cr" (4 characters) is not a valid',
    ),
]
