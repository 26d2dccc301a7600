# All images: `make images`, or `docker buildx bake [TARGET]`. Without buildx, hack/docker/build.sh builds the same in order.
variable "REGISTRY" { default = "ghcr.io/thinkimg" }
variable "VERSION" { default = "0.1.0" }
variable "REVISION" { default = "unknown" }
variable "TORCH_BACKEND" { default = "" } # cpu: without CUDA
variable "BASE_IMAGE" { default = null }  # null: the Dockerfiles' own, pinned by digest

group "default" { targets = ["runtime", "tool", "operator", "trainer"] }
group "all" { targets = ["default", "tool-with-weights"] }
# Not among them: trainer-vllm, by far the largest.

target "common" {
  args = { BASE_IMAGE = BASE_IMAGE, VERSION = VERSION, REVISION = REVISION, TORCH_BACKEND = TORCH_BACKEND }
}

target "runtime" {
  inherits   = ["common"]
  dockerfile = "Dockerfile.runtime"
  tags       = ["${REGISTRY}/runtime:${VERSION}"]
}

target "operator" {
  inherits   = ["common"]
  dockerfile = "Dockerfile.operator"
  tags       = ["${REGISTRY}/operator:${VERSION}"]
}

target "on-runtime" {
  inherits = ["common"]
  args     = { RUNTIME_IMAGE = "thinkimg-runtime" }
  contexts = { thinkimg-runtime = "target:runtime" }
}

target "tool" {
  inherits   = ["on-runtime"]
  dockerfile = "Dockerfile.tool"
  args       = { EXTRA = "tools" }
  tags       = ["${REGISTRY}/tool:${VERSION}"]
}

target "tool-with-weights" {
  name       = "tool-${extra}"
  matrix     = { extra = ["transformers", "segment-anything", "groundingdino", "paddleocr"] }
  inherits   = ["on-runtime"]
  dockerfile = "Dockerfile.tool"
  args       = { EXTRA = "tools ${extra}" }
  tags       = ["${REGISTRY}/tool-${extra}:${VERSION}"]
}

target "trainer" {
  inherits   = ["on-runtime"]
  dockerfile = "Dockerfile.trainer"
  tags       = ["${REGISTRY}/trainer:${VERSION}"]
}

target "trainer-vllm" {
  inherits   = ["trainer"]
  args       = { EXTRA = "vllm deepspeed tracking" }
  tags       = ["${REGISTRY}/trainer-vllm:${VERSION}"]
}
