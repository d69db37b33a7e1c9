//! The work of the methods, a file for each resource.

pub mod find;
pub mod images;
pub mod network;
pub mod node;
pub mod page;
pub mod pool;
pub mod task;
pub mod template;
pub mod vm;
pub mod volume;
