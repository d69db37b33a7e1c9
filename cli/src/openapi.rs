//! `vmyard openapi`

use crate::client::Failure;

/// Prints the document.
pub fn run() -> Result<(), Failure> {
    println!("{:#}", server::openapi(&server::table()));
    Ok(())
}
