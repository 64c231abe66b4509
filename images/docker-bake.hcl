# Every image, built from the repository's root: `matrix build TARGET` calls this file, labels what it makes and records it.
#   docker buildx bake --file images/docker-bake.hcl cpu-openvino
# The variables below are read from the environment.

# python:3.11-slim-bookworm, Python 3.11 on Debian 12, for amd64 and arm64. `matrix images base` makes local stand-ins.
variable "BASE_IMAGE" {
  default = "python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b"
}
# The same for arm64, where one tag cannot hold both architectures (an engine without the containerd image store).
variable "BASE_IMAGE_ARM64" {
  default = ""
}
# Where PyTorch's CPU wheel comes from: a folder that holds it, or else this index. The lock's hash decides what is accepted.
variable "TORCH_WHEELS" {
  default = ""
}
variable "TORCH_INDEX" {
  default = "https://download.pytorch.org/whl/cpu"
}
# A certificate authority that pip must trust during the build (a company's proxy); a build secret, in no layer.
variable "CA_FILE" {
  default = ""
}
# The date of every file that a build makes (2000-01-01): the same inputs give the same layers.
variable "SOURCE_DATE_EPOCH" {
  default = "946684800"
}

group "default" {
  targets = ["cpu-openvino", "lambda-amd64"]
}

target "_common" {
  context = "."
  args = {
    BASE_IMAGE        = BASE_IMAGE
    SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH
  }
  secret = CA_FILE != "" ? ["id=ca,src=${CA_FILE}"] : []
}

target "_torch" {
  inherits   = ["_common"]
  dockerfile = "images/Dockerfile"
  platforms  = ["linux/amd64"]
}

# The CPU's packages, and where their torch comes from.
target "_cpu-packages" {
  args = {
    IMAGE       = "cpu-openvino"
    TORCH_INDEX = TORCH_INDEX
  }
  contexts = TORCH_WHEELS != "" ? { wheels = TORCH_WHEELS } : {}
}

target "cpu-openvino" {
  inherits = ["_torch", "_cpu-packages"]
  target   = "cpu-openvino"
  tags     = ["distill-matrix/cpu-openvino"]
}

target "cuda" {
  inherits = ["_torch"]
  target   = "cuda"
  tags     = ["distill-matrix/cuda"]
  args = {
    IMAGE = "cuda"
  }
}

# The cuda image with the CPU's packages: what CI builds, so that the Dockerfile is exercised where 5 GB of CUDA are too much.
# It measures nothing, no target runs it, and it must not be published.
target "cuda-stand-in" {
  inherits = ["cuda", "_cpu-packages"]
  tags     = ["distill-matrix/cuda-stand-in"]
  labels = {
    "distill-matrix.stand-in" = "CPU packages in the cuda image, to exercise its Dockerfile; never published"
  }
}

target "_lambda" {
  inherits   = ["_common"]
  context    = "images/lambda"
  dockerfile = "Dockerfile"
}

target "lambda-amd64" {
  inherits  = ["_lambda"]
  platforms = ["linux/amd64"]
  tags      = ["distill-matrix/lambda-amd64"]
}

target "lambda-arm64" {
  inherits  = ["_lambda"]
  platforms = ["linux/arm64"]
  tags      = ["distill-matrix/lambda-arm64"]
  args = {
    BASE_IMAGE  = BASE_IMAGE_ARM64 != "" ? BASE_IMAGE_ARM64 : BASE_IMAGE
    BUILD_IMAGE = BASE_IMAGE
  }
}
