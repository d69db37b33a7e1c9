//! `vmyard completion`

use crate::{failure::Failure, output};
use clap_complete::env::Shells;

/// The variable under which the shell asks this program for candidates.
pub const VARIABLE: &str = "VMYARD_COMPLETE";

/// `vmyard completion`
#[derive(clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// A shell whose completion is known.
#[derive(clap::ValueEnum, Clone, Copy)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script that makes the shell ask this program.
pub fn run(args: Args) -> Result<(), Failure> {
    let name = match args.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let failed = |why: String| Failure::Usage(format!("write the script for {name}: {why}"));
    let shells = Shells::builtins();
    let shell = shells.completer(name).ok_or_else(|| failed("it is not known".to_owned()))?;
    // By its whole path: the binary may lie outside of PATH.
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let mut script = Vec::new();
    shell
        .write_registration(VARIABLE, "vmyard", "vmyard", &program.to_string_lossy(), &mut script)
        .map_err(|error| failed(error.to_string()))?;
    output::print(&String::from_utf8_lossy(&script))
}
