"""The published tables of `benchmarks.quality`: {table: {column: flags of main.py}}."""

_STABILISED = (
    "--recipe=minimal", "--r1_gamma=1", "--penalty_every=4", "--ema_decay=0.999", "--beta1=0",
    "--beta2=0.99", "--learning_rate=0.002", "--batch_size=32", "--prior=normal",
    "--num_steps=20000",
)  # fmt: skip
_DCGAN = ("--recipe=dcgan", "--batch_size=32")
_DCGAN_BFLOAT16 = (*_DCGAN, "--precision=bfloat16")
_PRETRAINED = ("--recipe=pretrained_cnn", "--precision=bfloat16")
_STABLE = "--recipe=stable_cnn"

# Of `--table=seconds`.
SECONDS = (5, 15, 30, 60, 120)

TABLES = {
    "recipes": {
        "minimal": ("--recipe=minimal",),
        "stabilised minimal": _STABILISED,
        "stable_cnn": (_STABLE,),
    },
    "ablation": {
        "stable_cnn": (_STABLE,),
        "without R1": (_STABLE, "--r1_gamma=0"),
        "without the average": (_STABLE, "--ema_decay=0"),
        "without minibatch deviation": (_STABLE, "--nominibatch_stddev"),
        "D without convolutions": (_STABLE, "--d_channels=0"),
        "G without convolutions": (_STABLE, "--g_channels=0"),
        "without decay of the rates": (_STABLE, "--lr_decay=0"),
        "without the cooldown": (_STABLE, "--lr_cooldown=0"),
        "Adam's usual betas": (_STABLE, "--beta1=0.9", "--beta2=0.999"),
    },
    "conditional": {
        "unconditional": (_STABLE,),
        "projection": (_STABLE, "--conditional", "--conditioning=projection"),
        "concatenation": (_STABLE, "--conditional", "--conditioning=concat"),
    },
    "labels": {
        "stable_cnn": (_STABLE,),
        "with labels": (_STABLE, "--conditional"),
    },
    "fashion": {
        "stable_cnn": (_STABLE, "--dataset=fashion_mnist"),
        "with labels": (_STABLE, "--dataset=fashion_mnist", "--conditional"),
    },
    # As far as a quarter of an hour takes each.
    "articles": {
        "minimal": ("--recipe=minimal",),
        "leaky_mlp": ("--recipe=leaky_mlp",),
        "upsampling_cnn": ("--recipe=upsampling_cnn", "--precision=bfloat16", "--num_steps=1500"),
        "dcgan": (*_DCGAN_BFLOAT16, "--num_steps=1200"),
        "pretrained_cnn": (*_PRETRAINED, "--num_steps=250"),
        "pretrained_cnn at other rates": (
            *_PRETRAINED,
            "--learning_rate=0.0001",
            "--g_learning_rate=0.001",
            "--beta1=0.5",
            "--num_steps=700",
        ),
    },
    # Every recipe, with batches and a pre-training that leave time for some steps.
    "seconds": {
        **{name: (f"--recipe={name}",) for name in ("minimal", "leaky_mlp", "stable_cnn")},
        "stabilised minimal": _STABILISED,
        "dcgan": _DCGAN,
        "upsampling_cnn": ("--recipe=upsampling_cnn",),
        "pretrained_cnn": ("--recipe=pretrained_cnn", "--pretraining=512"),
    },
    "precision": {
        "dcgan": (*_DCGAN, "--num_steps=400"),
        "dcgan in bfloat16": (*_DCGAN_BFLOAT16, "--num_steps=400"),
    },
}
