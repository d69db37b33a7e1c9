//! Tests on real libvirt and QEMU, through the real binary: what a user does, over HTTP and by the CLI.
//!
//! Need root, QEMU, libvirt and the tiny template: `make test` prepares all of it.

#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

mod access;
mod admission;
mod adopt;
mod attach;
mod autostart;
mod backup;
mod cli;
mod cli_change;
mod cli_guest;
mod cli_output;
mod cloud_init;
mod cloud_init_debian;
mod crash;
mod credentials;
mod credentials_boot;
mod credentials_offline;
mod debian;
mod diagnose;
mod drift;
mod events;
mod faults;
mod foreign;
mod fuzz;
mod guest;
mod guest_info;
mod hardware;
mod http;
mod isos;
mod kept;
mod keypairs;
mod life;
mod list;
mod metrics;
mod modify;
mod moved;
mod nics;
mod nodes;
mod nvram;
mod orphans;
mod outside;
mod plan;
mod random;
mod random_snapshots;
mod rebuild;
mod reset;
mod screens;
mod serial;
mod snapshots;
mod snapshots_crash;
mod snapshots_full;
mod snapshots_live;
mod storage;
mod tasks;
mod templates;
mod transports;
mod two_nodes;
mod volumes;
mod volumes_crash;
mod webhooks;
