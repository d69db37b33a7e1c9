//! Tests on real libvirt and QEMU, through the real binary: what a user does, over HTTP and by the CLI.
//!
//! Need root, QEMU, libvirt and the tiny template: `make test` prepares all of it.

#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

mod admission;
mod cli;
mod crash;
mod foreign;
mod guest;
mod http;
mod life;
mod nodes;
mod storage;
mod tasks;
mod templates;
