#!/bin/sh
# Takes out of a virtual environment what no suite runs: other devices' plug-ins, headers, the libraries' own tests. Every
# package stays importable and keeps its metadata and licence, for the SBOM is read from them.
set -eu
site=$(echo "$1"/lib/python3*/site-packages)
cd "$site"
rm -rf torch/test torch/include torch/share
find torch/bin -type f ! -name torch_shm_manager -delete
for part in intel_gpu_plugin intel_npu auto_batch hetero_plugin tensorflow tensorflow_lite paddle jax; do
  rm -rf openvino/libs/libopenvino_"$part"*
done
rm -rf openvino/libs/cache.json openvino/include
# the C library beside the Python module, which holds all of it
rm -f onnxruntime/capi/libonnxruntime.so*
# arrow libraries that the data sets library never opens: flight and S3, with the modules that need them
rm -rf pyarrow/include pyarrow/tests pyarrow/libarrow_flight.so* pyarrow/_flight.*.so pyarrow/libarrow_s3.so* pyarrow/_s3fs.*.so
rm -rf onnx/backend/test
# TextBrewer asks for TensorBoard, to write its files: the server, its pages and its binary are nobody's here
rm -rf tensorboard/webfiles.zip tensorboard_data_server/bin
find pandas scipy sklearn sympy networkx mpmath numpy joblib -type d -name tests -prune -exec rm -rf {} +
find . -name '*.pyi' -delete
find . -type d -name __pycache__ -prune -exec rm -rf {} +
