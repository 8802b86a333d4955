"""What pyproject.toml cannot say: the stage scripts beside the library go into the wheel too, for `mtl train`."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SCRIPTS = sorted(str(path) for path in Path("src").glob("*.py"))


class BuildWithStages(build_py):
    """Build the packages, and copy the stage scripts into mtl/stages."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # then they are where they are
            folder = Path(self.build_lib, "mtl", "stages")
            self.mkpath(str(folder))
            for script in SCRIPTS:
                self.copy_file(script, str(folder / Path(script).name))

    def get_source_files(self) -> list[str]:
        """What a source distribution holds."""
        return [*super().get_source_files(), *SCRIPTS]


setup(cmdclass={"build_py": BuildWithStages})
