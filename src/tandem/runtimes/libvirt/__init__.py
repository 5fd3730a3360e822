"""The virtual machine runtime: libvirt and QEMU."""
