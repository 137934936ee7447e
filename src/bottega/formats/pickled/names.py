"""Which of the names in a pickle are harmless, which are unusual, and which could run code where they are believed.

Nothing that is named is ever run here; the judgement only decides what the user is told. It is an allow-list: a name of
Python's own library, of torch or of numpy that is not known to be harmless counts as dangerous, so that a function that
nobody has thought of does too.
"""

from __future__ import annotations

import sys

INERT, UNUSUAL, DANGEROUS = "inert", "unusual", "dangerous"

DTYPE_OF_NAME = {
    "uint8": "U8", "int8": "I8", "int16": "I16", "short": "I16", "int32": "I32", "int": "I32", "int64": "I64",
    "long": "I64", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
    "float16": "F16", "half": "F16", "bfloat16": "BF16", "float32": "F32", "float": "F32", "float64": "F64",
    "double": "F64", "complex32": "C32", "chalf": "C32", "complex64": "C64", "cfloat": "C64", "complex128": "C128",
    "cdouble": "C128", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0", "float4_e2m1fn_x2": "F4_X2",
    "bits8": "BITS8", "bits16": "BITS16", "bits1x8": "BITS1X8", "bits2x4": "BITS2X4", "bits4x2": "BITS4X2",
}  # fmt: skip
DTYPE_OF_STORAGE = {
    "ByteStorage": "U8", "CharStorage": "I8", "ShortStorage": "I16", "IntStorage": "I32", "LongStorage": "I64",
    "BoolStorage": "BOOL", "HalfStorage": "F16", "BFloat16Storage": "BF16", "FloatStorage": "F32",
    "DoubleStorage": "F64", "ComplexFloatStorage": "C64", "ComplexDoubleStorage": "C128", "UntypedStorage": "U8",
}  # fmt: skip

# Storages of quantised tensors, and the bytes of their elements.
BYTES_OF_QUANTISED = {
    "QInt8Storage": 1, "QInt32Storage": 4, "QUInt8Storage": 1, "QUInt4x2Storage": 1, "QUInt2x4Storage": 1
}  # fmt: skip
TORCH_FUNCTIONS = "_VariableFunctionsClass"  # the class in torch._C that they are methods of
OLD_TENSORS = tuple(f"{kind}Tensor" for kind in [
    "Byte", "Char", "Short", "Int", "Long", "Bool", "Half", "BFloat16", "Float", "Double",
])  # fmt: skip
_NUMPY_NUMBERS = [
    "bool", "bool_", "int8", "int16", "int32", "int64", "intc", "intp", "uint8", "uint16", "uint32", "uint64", "uintc",
    "uintp", "longlong", "ulonglong", "float16", "float32", "float64", "longdouble", "complex64", "complex128",
    "clongdouble", "str_", "bytes_", "void", "datetime64", "timedelta64",
]  # fmt: skip
_NUMPY_DTYPES = [
    "Bool", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "LongLong", "ULongLong",
    "Float16", "Float32", "Float64", "LongDouble", "Complex64", "Complex128", "CLongDouble", "Object", "Bytes", "Str",
    "String", "Void", "DateTime64", "TimeDelta64",
]  # fmt: skip
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_CONTAINERS = [
    "set", "frozenset", "list", "tuple", "dict", "slice", "complex", "range", "bytes", "bytearray", "object", "str",
    "int", "float", "bool",
]  # fmt: skip
_HARMLESS: dict[str, tuple[str, ...] | list[str]] = {
    "builtins": _CONTAINERS,
    "__builtin__": [*_CONTAINERS, "long", "unicode", "xrange"],
    "collections": ("OrderedDict", "defaultdict", "Counter", "deque"),
    "_codecs": ("encode",),  # how protocol 2 writes bytes; the machine encodes them itself, in two encodings
    "copyreg": ("_reconstructor", "__newobj__"),
    "copy_reg": ("_reconstructor", "__newobj__"),
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "pathlib": ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"),
    "pathlib._local": ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"),
    "datetime": ("datetime", "date", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "uuid": ("UUID", "SafeUUID"),
    "enum": ("Enum", "IntEnum", "Flag", "IntFlag", "StrEnum"),
    "typing": ("Any", "Dict", "List", "Tuple", "Union", "Optional"),
    "torch": [
        "Size", "device", "Tensor", "Generator", "strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr",
        "sparse_bsc", "contiguous_format", "preserve_format", "channels_last", "channels_last_3d",
        "per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric",
        "per_channel_affine_float_qparams", "qint8", "qint32", "quint8", "quint4x2", "quint2x4",
        *DTYPE_OF_NAME, *DTYPE_OF_STORAGE, *BYTES_OF_QUANTISED, *OLD_TENSORS,
    ],
    "torch._C": ("Generator",),
    "torch.cuda": [*DTYPE_OF_STORAGE, *OLD_TENSORS],
    "torch.storage": [*DTYPE_OF_STORAGE, "TypedStorage", "_TypedStorage"],
    "torch._utils": [
        "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter",
        "_rebuild_parameter_with_state", "_rebuild_qtensor", "_rebuild_sparse_tensor", "_rebuild_sparse_csr_tensor",
        "_rebuild_nested_tensor", "_rebuild_meta_tensor_no_storage", "_rebuild_wrapper_subclass",
        "_rebuild_device_tensor_from_numpy", "_rebuild_device_tensor_from_cpu_tensor",
    ],
    "torch._tensor": ("_rebuild_from_type_v2", "_rebuild_from_type"),
    "torch.serialization": ("_get_layout",),
    "torch.nn.parameter": ("Parameter", "Buffer", "UninitializedParameter", "UninitializedBuffer"),
    "torch.nn.modules.container": ("ParameterDict", "ParameterList"),
    "torch.jit._pickle": (
        "build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "build_tensor_from_id",
        "restore_type_tag",
    ),
    "torch.torch_version": ("TorchVersion",),
    "torch.nested._internal.nested_tensor": ("NestedTensor", "_rebuild_njt"),
    "torch._dynamo.decorators": ("_DimRange",),  # which nested tensors keep of their shapes
    "torch.masked.maskedtensor.core": ("MaskedTensor",),
    # What torch.distributed.checkpoint keeps of its tensors in `.metadata`, beside the files with their bytes.
    "torch.distributed.checkpoint.metadata": (
        "Metadata", "TensorStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING", "ChunkStorageMetadata",
        "BytesStorageMetadata", "MetadataIndex", "StorageMeta",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "numpy": ["dtype", "ndarray", *_NUMPY_NUMBERS],
    "numpy.dtypes": [f"{name}DType" for name in _NUMPY_DTYPES],
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy._core.numeric": ("_frombuffer",),
    "numpy.random._pickle": ("__randomstate_ctor", "__generator_ctor", "__bit_generator_ctor"),
    "numpy.random.mtrand": ("RandomState",),
    "numpy.random._generator": ("Generator",),
    **{f"numpy.random._{name.lower()}": (name,) for name in _BIT_GENERATORS},
    # Training leaves these in checkpoints: Stable Diffusion 1.4 itself has a callback's class as a key.
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.nodes": (
        "AnyNode", "ValueNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode", "EnumNode", "BytesNode",
        "PathNode",
    ),
}  # fmt: skip
_INERT = {module: frozenset(names) for module, names in _HARMLESS.items()}
# Callbacks of Lightning whose classes are the keys of a checkpoint's `callbacks`, by module.
_CALLBACKS = {
    "model_checkpoint": ("ModelCheckpoint",),
    "early_stopping": ("EarlyStopping",),
    "lr_monitor": ("LearningRateMonitor",),
    "progress": ("ProgressBar", "TQDMProgressBar", "RichProgressBar"),
    "stochastic_weight_avg": ("StochasticWeightAveraging",),
    "timer": ("Timer",),
    "gradient_accumulation_scheduler": ("GradientAccumulationScheduler",),
    "finetuning": ("BaseFinetuning", "BackboneFinetuning"),
}
_INERT.update(
    (f"{package}.callbacks.{module}", frozenset(names))
    for package in ("pytorch_lightning", "lightning.pytorch")
    for module, names in _CALLBACKS.items()
)

# Classes of torch that whole networks and optimizers consist of.
_NETWORK_CLASSES = (
    "torch.nn.modules.", "torch.optim.", "torch.nn.utils.", "torch.nn.quantized.", "torch.ao.nn.",
    "torch.nn.intrinsic.", "torch.utils.data.dataset.", "torch.utils.data.sampler.", "torch.autograd.variable.",
    "torch.nn.qat.", "torch.nn.parallel.", "torch.quantization.observer.", "torch.ao.quantization.observer.",
    "torch.distributions.", "torchvision.models.", "torchvision.transforms.", "torchvision.ops.", "torchaudio.models.",
    "torchaudio.transforms.",
)  # fmt: skip

_STUBS = ("QuantStub", "DeQuantStub", "QuantWrapper")
_SCALERS = ("GradScaler", "OptState", "_refresh_per_optimizer_state")
# Those that call no function that they are given.
_FUNCTIONS = (
    "relu", "relu6", "gelu", "silu", "tanh", "sigmoid", "leaky_relu", "elu", "celu", "selu", "glu", "mish", "prelu",
    "rrelu", "softplus", "softsign", "softmax", "log_softmax", "logsigmoid", "hardtanh", "hardswish", "hardsigmoid",
    "hardshrink", "softshrink", "tanhshrink", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "cross_entropy",
    "nll_loss", "kl_div", "binary_cross_entropy", "binary_cross_entropy_with_logits", "poisson_nll_loss",
    "gaussian_nll_loss", "ctc_loss", "soft_margin_loss", "multi_margin_loss", "multilabel_margin_loss",
    "multilabel_soft_margin_loss", "margin_ranking_loss", "hinge_embedding_loss", "cosine_embedding_loss",
    "triplet_margin_loss", "cosine_similarity", "pairwise_distance", "normalize", "interpolate", "dropout",
)  # fmt: skip
_INITIALISERS = (
    "calculate_gain", "constant_", "dirac_", "eye_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_",
    "orthogonal_", "sparse_", "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_", "zeros_",
)  # fmt: skip

# What is no part of a model and yet stands in real ones, beside the tensors: data, activations, wrappers.
_ODD: dict[str, tuple[str, ...]] = {
    "torch.nn.backends.thnn": ("_get_thnn_function_backend",),  # in whole modules of torch 0.4 to 1.2
    "torch.cuda.amp.grad_scaler": _SCALERS,
    "torch.amp.grad_scaler": _SCALERS,
    "torch.ao.quantization.stubs": _STUBS,
    "torch.quantization.stubs": _STUBS,
    "torch._dynamo.eval_frame": ("OptimizedModule",),
    "torch.nn.functional": _FUNCTIONS,
    "torch.nn.init": _INITIALISERS,
    "torch._C._nn": ("gelu", "silu", "leaky_relu", "elu", "mish", "softplus"),
    "torch._C._VariableFunctions": ("relu", "tanh", "sigmoid", "selu"),
    "torch._C": (TORCH_FUNCTIONS,),  # of which torch.relu and others are called by `getattr`
    "torch": ("relu", "tanh", "sigmoid", "selu"),
    "numpy": ("object_", "generic", "integer", "floating", "number", "signedinteger", "unsignedinteger"),
    "numpy.random": ("__RandomState_ctor",),
    "numpy.random.bit_generator": ("SeedSequence", "__pyx_unpickle_SeedSequence"),
    "numpy.ma.core": ("_mareconstruct", "MaskedArray"),
    "array": ("array", "_array_reconstructor"),
    "_io": ("BytesIO", "StringIO"),
    "time": ("struct_time",),
    "zoneinfo": ("ZoneInfo",),
    "ipaddress": ("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network"),
    "random": ("Random",),
    "logging": ("Logger", "getLogger"),
    "platform": ("uname_result",),
    "string": ("Template",),
    "re": ("_compile",),
    "dataclasses": ("_MISSING_TYPE",),
    "weakref": ("WeakSet",),
    "functools": ("partial",),  # what it would call is named beside it, and judged by itself
    # `getattr` is how older protocols name a method or a member of an enum, and all of them a function of torch;
    # rebuild.py refuses any other use of it.
    "builtins": ("type", "len", "max", "min", "Ellipsis", "NotImplemented", "getattr"),
    "__builtin__": ("type", "len", "max", "min", "Ellipsis", "NotImplemented", "getattr"),
}

# Modules that some version of Python has or had, but perhaps not the one that runs.
_PAST_AND_FUTURE = frozenset({
    "__builtin__", "aifc", "asynchat", "asyncore", "audioop", "binhex", "cPickle", "cStringIO", "cgi", "cgitb",
    "chunk", "commands", "copy_reg", "crypt", "distutils", "dummy_thread", "dummy_threading", "exceptions",
    "formatter", "httplib", "imghdr", "imp", "lib2to3", "macpath", "mailcap", "msilib", "nis", "nntplib",
    "ossaudiodev", "parser", "pipes", "popen2", "smtpd", "sndhdr", "spwd", "sunau", "symbol", "symtable",
    "telnetlib", "test", "thread", "turtledemo", "urllib2", "urlparse", "user", "uu", "xdrlib", "xmlrpclib",
    "_aix_support", "_bootsubprocess", "_interpreters", "_interpchannels", "_interpqueues", "_osx_support",
    "_pyrepl", "_xxinterpchannels", "_xxsubinterpreters", "annotationlib", "compression", "concurrent", "nt", "os",
    "posix", "ntpath", "posixpath", "winreg", "_winapi", "_testcapi",
})  # fmt: skip
# Modules of Python 2, which Python 3 still finds by these names when a pickle is of protocol 2 or older, or which have
# gone with it.
_PYTHON_2 = frozenset({
    "BaseHTTPServer", "Bastion", "CGIHTTPServer", "ConfigParser", "Cookie", "Dialog", "DocXMLRPCServer", "FileDialog",
    "HTMLParser", "MimeWriter", "Queue", "ScrolledText", "SimpleDialog", "SimpleHTTPServer", "SimpleXMLRPCServer",
    "SocketServer", "StringIO", "Tix", "Tkconstants", "Tkdnd", "Tkinter", "UserDict", "UserList", "UserString",
    "_abcoll", "_dummy_thread", "_winreg", "anydbm", "bsddb", "compiler", "cookielib", "dbhash", "dircache", "dumbdbm",
    "gdbm", "hotshot", "htmlentitydefs", "htmllib", "ihooks", "imputil", "markupbase", "mhlib", "mimetools", "mimify",
    "multifile", "posixfile", "repr", "rexec", "rfc822", "robotparser", "sgmllib", "statvfs", "tkColorChooser",
    "tkCommonDialog", "tkFileDialog", "tkFont", "tkMessageBox", "tkSimpleDialog", "ttk", "whichdb", "xmllib",
})  # fmt: skip
_STANDARD = frozenset(sys.stdlib_module_names) | _PAST_AND_FUTURE | _PYTHON_2
# Of these names people's own modules are called too: their classes are as unusual as any, their functions are not.
_COMMON_WORDS = frozenset({"parser", "test", "user", "symbol", "chunk", "formatter", "exceptions", "compiler", "repr"})

# Packages whose functions start programs, fetch and run code, or unpickle.
_RUNS_CODE = frozenset({
    "pip", "setuptools", "pkg_resources", "_distutils_hack", "wheel", "virtualenv", "venv", "conda", "IPython",
    "ipykernel", "jupyter_client", "notebook", "requests", "urllib3", "aiohttp", "httpx", "httplib2", "websocket",
    "websockets", "pycurl", "tornado", "twisted", "flask", "werkzeug", "django", "paramiko", "fabric", "invoke",
    "sh", "plumbum", "pexpect", "ptyprocess", "psutil", "docker", "kubernetes", "git", "dill", "cloudpickle",
    "joblib", "jsonpickle", "klepto", "pickle5", "zmq", "ray", "dask", "distributed", "celery", "mlflow", "wandb",
    "boto3", "fsspec", "s3fs", "gdown", "jinja2", "mako", "yaml", "ruamel", "pandas", "sklearn", "keras",
    "tensorflow", "tensorboard", "jax", "numba", "llvmlite", "cffi", "Cython", "pyximport", "pythran", "sympy",
    "nltk", "theano", "pytest", "_pytest", "nose", "hypothesis", "mypy", "execnet", "rpyc", "Pyro4", "Pyro5",
    "pywin32", "win32api", "win32com", "win32process", "pythoncom", "selenium", "playwright", "cupy", "pycuda",
    "triton", "torchvision", "torchaudio", "torchtext", "fickling", "picklescan", "modelscan",
})  # fmt: skip

# Functions of packages that are harmless else, which import, call, fetch, unpickle or evaluate whatever they are told.
_CALLS_ANYTHING = frozenset({
    ("hydra.utils", "instantiate"), ("hydra.utils", "call"), ("hydra.utils", "get_method"),
    ("hydra.utils", "get_class"), ("hydra._internal.utils", "_locate"),
    ("hydra._internal.instantiate._instantiate2", "instantiate"),
    ("PIL.ImageMath", "eval"), ("PIL.ImageMath", "unsafe_eval"), ("numexpr", "evaluate"), ("fire", "Fire"),
    ("fire.core", "Fire"), ("trio", "run_process"), ("anyio", "run_process"), ("gevent.subprocess", "Popen"),
    ("srsly", "pickle_loads"), ("gensim.utils", "unpickle"), ("networkx", "read_gpickle"), ("bottle", "template"),
    ("asteval", "Interpreter"), ("transformers.dynamic_module_utils", "get_class_from_dynamic_module"),
    ("transformers.dynamic_module_utils", "get_class_in_module"), ("diffusers.utils.dynamic_modules_utils",
    "get_class_from_dynamic_module"), ("omegaconf.resolvers.oc", "decode"), ("pydoc_data", "locate"),
    ("__builtins__", "eval"), ("__builtins__", "exec"), ("__builtins__", "getattr"), ("__builtins__", "__import__"),
    ("six", "exec_"), ("attr._make", "_make_method"), ("decorator", "FunctionMaker.create"),
    ("past.builtins", "execfile"), ("past.builtins.misc", "execfile"), ("future.utils", "exec_"),
    ("traitlets.utils.importstring", "import_item"), ("kombu.utils.imports", "symbol_by_name"),
    ("zope.dottedname.resolve", "resolve"), ("nemo.utils.model_utils", "import_class_by_path"),
    ("wrapt.importer", "resolve_path"), ("gi.repository", "GLib.spawn_command_line_sync"),
    ("gi.repository.GLib", "spawn_command_line_sync"), ("bottle", "SimpleTemplate"),
    ("omegaconf", "OmegaConf.load"), ("omegaconf.omegaconf", "OmegaConf.load"),
    ("lightning.fabric.utilities.cloud_io", "_load"), ("lightning_fabric.utilities.cloud_io", "_load"),
    ("pytorch_lightning.utilities.cloud_io", "load"), ("timm.models._hub", "load_state_dict_from_hf"),
    ("accelerate.utils", "load"), ("accelerate.utils.other", "load"), ("comfy.utils", "load_torch_file"),
    ("modules.safe", "unsafe_torch_load"), ("modules.launch_utils", "run"),
    ("ultralytics.utils.checks", "check_requirements"), ("huggingface_hub", "hf_hub_download"),
    ("huggingface_hub.file_download", "hf_hub_download"), ("datasets", "load_dataset"),
    ("datasets.load", "load_dataset"),
})  # fmt: skip


def judge(module: str, name: str) -> str:
    """INERT, UNUSUAL or DANGEROUS."""
    if name in _INERT.get(module, ()):
        return INERT
    if name in _ODD.get(module, ()):
        return UNUSUAL
    if not _is_plain(module, name):
        return DANGEROUS
    root = module.partition(".")[0]
    if is_class(name) and (f"{module}.".startswith(_NETWORK_CLASSES) or root in _COMMON_WORDS):
        return UNUSUAL
    known = root in _STANDARD or root in _RUNS_CODE or root in ("torch", "numpy")
    return DANGEROUS if known or (module, name) in _CALLS_ANYTHING else UNUSUAL


def is_unknown_class(module: str, name: str) -> bool:
    """Whether this names a class, or a class within a class, of somebody's own package."""
    return all(map(is_class, name.split("."))) and judge(module, name) == UNUSUAL


def is_unknown_function(module: str, name: str) -> bool:
    """Whether this names a function, or a method, of which nothing is known."""
    return not is_class(name.rpartition(".")[2]) and judge(module, name) == UNUSUAL and name not in _ODD.get(module, ())


def is_script(module: str) -> bool:
    """Whether a name is TorchScript's, for a class whose code lies in the same archive."""
    return module == "__torch__" or module.startswith("__torch__.")


def is_function(name: str) -> bool:
    """Whether an unusual name of torch is a function's, or that of the class whose methods are functions."""
    return not is_class(name) or name == TORCH_FUNCTIONS


def _is_plain(module: str, name: str) -> bool:
    """Whether this is a name at the top of a module, a class within a class, or a method; any other name with a dot in
    it reaches into whatever the module imports."""
    parts = name.split(".")
    return (
        all(part.isidentifier() and not part.startswith("__") for part in parts)
        and all(map(is_class, parts[:-1]))
        and all(part.replace("-", "_").isidentifier() for part in module.split("."))
    )


def is_class(name: str) -> bool:
    """Whether a name is written as those of classes are."""
    return name.lstrip("_")[:1].isupper()
