"""Imports what the suites import, so that Python leaves its byte code in the image: a read-only root cannot take it later.

Only that: byte code of everything that is installed would add a seventh to the image. What is imported besides is compiled
in memory, each time.
"""

import accelerate
import datasets
import greenlet
import lightning
import nncf
import onnx
import onnxruntime.quantization
import openvino
import optimum.exporters.onnx
import optimum.intel
import optimum.onnxruntime
import peft
import psutil
import pydantic
import pytest
import pytest_benchmark.plugin
import rfc8785
import textbrewer
import torch
import torch._dynamo
import torch.distributed.fsdp
import torch.onnx
import torch.optim
import torch.utils.data
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)
from trl import DistillationTrainer, SFTTrainer
from trl.experimental.gkd import GKDTrainer
