"""What recipes share. Importing it asks for the packages that they need beyond those of ml3_tf, all at once."""

import importlib.util

NEEDED = {  # module -> package
    "PIL": "pillow",
    "gymnasium": "gymnasium",
    "joblib": "joblib",
    "matplotlib": "matplotlib",
    "mujoco": "mujoco",
    "psutil": "psutil",  # by it joblib sees how much memory a process takes
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "tensorflow_probability": "tensorflow-probability",
    "tyro": "tyro",
}


def check_packages() -> None:
    """Raises `ImportError` with the command that installs them if packages of the extra `[recipes]` are missing."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(
            f"Recipes need packages that are not installed: {', '.join(missing)}. Install what is missing: "
            "pip install 'ml3_tf[recipes]'"
        )


check_packages()
