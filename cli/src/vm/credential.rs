//! `vmyard vm reset-password` and `vmyard vm reset-keypair`

use super::Name;
use crate::{change::Change, client::Client, complete, failure::Failure, human, output::Output};
use api::credential::{ResetMethod, ResetVmKeypair, ResetVmPassword};
use clap_complete::ArgValueCompleter;
use std::{fs, io::Read};

/// `vmyard vm reset-password`
#[derive(clap::Args)]
pub struct Password {
    #[command(flatten)]
    of: Of,
    /// A file with the new password; '-' is standard input [default: the server makes one, which is printed]
    // No option takes the password itself: whoever sees this machine's processes would see it.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    password_file: Option<String>,
    /// Ask for the new password on the terminal
    #[arg(long)]
    prompt: bool,
    #[command(flatten)]
    how: How,
}

/// `vmyard vm reset-keypair`
#[derive(clap::Args)]
pub struct Keypair {
    #[command(flatten)]
    of: Of,
    /// A file with an OpenSSH public key; may be repeated
    #[arg(long = "ssh-key", value_name = "FILE", required_unless_present = "keypairs")]
    ssh_keys: Vec<String>,
    /// A keypair of the server's; may be repeated
    #[arg(long = "keypair", value_name = "NAME", add = ArgValueCompleter::new(complete::keypairs))]
    keypairs: Vec<String>,
    #[command(flatten)]
    how: How,
}

/// Whose it is
#[derive(clap::Args)]
struct Of {
    #[command(flatten)]
    name: Name,
    /// The user in the guest
    user: String,
}

/// How it is reset
#[derive(clap::Args)]
struct How {
    /// auto, guest-agent, cloud-init or virt-customize [default: auto]
    #[arg(long, value_parser = method)]
    method: Option<ResetMethod>,
    /// Where it waits for the guest's next boot, ask the guest to reboot
    #[arg(long)]
    reboot: bool,
    #[command(flatten)]
    change: Change,
}

fn method(text: &str) -> Result<ResetMethod, String> {
    human::one_of(text, "auto, guest-agent, cloud-init or virt-customize")
}

/// Sets the password.
pub fn password(client: &Client, output: Output, args: Password) -> Result<(), Failure> {
    let failed = |from: &str, error: std::io::Error| Failure::Usage(format!("{from}: {error}"));
    let password = match args.password_file.as_deref() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|error| failed("standard input", error))?;
            Some(text)
        }
        Some(path) => Some(fs::read_to_string(path).map_err(|error| failed(path, error))?),
        None if args.prompt => {
            let ask = |what: &str| rpassword::prompt_password(what).map_err(|error| failed("the terminal", error));
            let text = ask("New password: ")?;
            if ask("Again: ")? != text {
                return Err(Failure::Usage("the two passwords differ".to_owned()));
            }
            Some(text)
        }
        None => None,
    };
    let request = ResetVmPassword {
        vm: args.of.name.vm,
        user: args.of.user,
        password: password.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()),
        method: args.how.method.unwrap_or_default(),
        reboot: args.how.reboot,
    };
    args.how.change.run(client, output, &request)
}

/// Replaces the keys.
pub fn keypair(client: &Client, output: Output, args: Keypair) -> Result<(), Failure> {
    let read = |path: &String| fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{path}: {error}")));
    let request = ResetVmKeypair {
        vm: args.of.name.vm,
        user: args.of.user,
        ssh_keys: args.ssh_keys.iter().map(read).collect::<Result<_, _>>()?,
        keypairs: args.keypairs,
        method: args.how.method.unwrap_or_default(),
        reboot: args.how.reboot,
    };
    args.how.change.run(client, output, &request)
}
