//! BPF map layouts, written once for both sides of the kernel boundary.
