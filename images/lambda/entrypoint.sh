#!/bin/sh
# The contract of AWS' own base images: on Lambda AWS_LAMBDA_RUNTIME_API is set and the runtime client speaks to it;
# anywhere else the Runtime Interface Emulator serves POST :8080/2015-03-31/functions/function/invocations.
set -eu
if [ -n "${AWS_LAMBDA_RUNTIME_API:-}" ]; then
  exec python3 -m awslambdaric "$@"
fi
exec /usr/local/bin/aws-lambda-rie /usr/bin/env python3 -m awslambdaric "$@"
