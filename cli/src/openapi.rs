//! `vmyard openapi`

use crate::{failure::Failure, output::Output};

/// Prints the document.
pub fn run(output: Output) -> Result<(), Failure> {
    output.data(&server::openapi(&server::table()))
}
