"""Models that benchmarks compare backends on."""

from pathlib import Path

from fit_jax.conversion.convert import import_model


def hugging_face_folder(model: str, scratch: str) -> str:
    """The model's Hugging Face folder; a llama2.c file is converted into one in the folder `scratch`."""
    if not model.endswith(".bin"):
        return model
    folder = Path(scratch) / "model"
    import_model(model, folder)
    return str(folder)
