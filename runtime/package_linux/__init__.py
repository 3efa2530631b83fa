"""t5g2 for ARM Linux as one tarball: `python -m t5g2.runtime.package_linux -o out/`."""
