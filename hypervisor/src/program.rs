//! Programs that run on a node, for what libvirt has no call for: on this machine, or on one that is reached by ssh.
//!
//! sshd hands what it is to run to a shell of that machine. So that is always the same text, [`REMOTE`]; the arguments
//! are sent to its standard input, a line each, and no shell ever reads them as its language.

use crate::{Error, ErrorKind, Node, Result, ssh, uri};
use std::{process::Stdio, time::Duration};
use tokio::{io::AsyncWriteExt, process::Command};

/// A program, and how it is run.
pub(crate) struct Program<'a> {
    /// Its name, looked for in the node's PATH.
    pub(crate) name: &'a str,
    /// Where it is to be had.
    pub(crate) package: &'a str,
    /// What it is given.
    pub(crate) args: &'a [&'a str],
    /// Variables of its environment, beside the locale.
    pub(crate) env: &'a [(&'a str, &'a str)],
    /// Its standard input.
    pub(crate) input: String,
    /// How long it may take.
    pub(crate) deadline: Option<Duration>,
}

/// What another machine's shell runs: it takes a line that begins with `+` as an argument, up to a line `.`; what follows that is
/// the program's input. `read` takes no byte more than its line. One that is cut off before the `.` starts nothing.
const REMOTE: &str = "exec sh -c 'while :; do IFS= read -r line || exit 125; [ \"$line\" = . ] && break; \
                      set -- \"$@\" \"${line#+}\"; done; exec env \"$@\"'";
/// A connection that says nothing for so long, in seconds and times, is given up.
const ALIVE: [&str; 4] = ["-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"];
/// What a program's messages are in.
const LOCALE: (&str, &str) = ("LC_ALL", "C.UTF-8");
/// The exit status of `env` for a program that isn't there (POSIX), and of `ssh` for one that wasn't reached.
const NOT_FOUND: i32 = 127;
const NOT_REACHED: i32 = 255;

impl Node {
    /// Whether programs can be run on this node.
    pub fn runs_programs(&self) -> bool {
        self.is_local() || ssh::leads_to(&uri::remote(self.secret_uri()))
    }

    /// Runs a program on the node; returns what it prints. Cut off, one on another machine may go on there. `Unsupported`: it isn't
    /// there, or the node is reached neither here nor by ssh. `Failed` and `NoSpace`, with what it says: it has failed.
    pub(crate) async fn run(&self, doing: &str, program: Program<'_>) -> Result<String> {
        let failed = |kind, why: &str| self.error(kind, doing, why);
        let name = program.name;
        if !self.runs_programs() {
            let why = format!("{name} can be run on this machine and on nodes that are reached by ssh (qemu+ssh) only");
            return Err(failed(ErrorKind::Unsupported, &why));
        }
        let (mut command, input) = match self.is_local() {
            true => (here(&program), program.input.clone()),
            false => (there(self.secret_uri()), sent(&program).map_err(|why| failed(ErrorKind::Failed, &why))?),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound if self.is_local() => self.missing(doing, &program),
            _ => failed(ErrorKind::Unsupported, &format!("{name} can't be run: {error}")),
        })?;
        let stdin = child.stdin.take();
        let ended = async {
            if let Some(mut stdin) = stdin {
                // One that ends before it has read says why on its standard error.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let output = match program.deadline {
            None => ended.await,
            Some(deadline) => tokio::time::timeout(deadline, ended).await.map_err(|_| {
                let why = format!("{name} has not ended within {} s, and was given up", deadline.as_secs());
                failed(ErrorKind::Timeout, &why)
            })?,
        };
        let output = output.map_err(|error| failed(ErrorKind::Failed, &format!("{name}: {error}")))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match output.status.code() {
            Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            Some(NOT_FOUND) if !self.is_local() => Err(self.missing(doing, &program)),
            Some(NOT_REACHED) if !self.is_local() => Err(failed(ErrorKind::Unavailable, &format!("ssh: {said}"))),
            _ if said.contains("No space left") => Err(failed(ErrorKind::NoSpace, &said)),
            _ => Err(failed(ErrorKind::Failed, &said)),
        }
    }

    fn missing(&self, doing: &str, program: &Program<'_>) -> Error {
        let why = format!("{} is not installed there; it is in {}", program.name, program.package);
        self.error(ErrorKind::Unsupported, doing, &why)
    }
}

fn here(program: &Program<'_>) -> Command {
    let mut command = Command::new(program.name);
    command.args(program.args).envs(program.env.iter().copied()).env(LOCALE.0, LOCALE.1);
    command
}

fn there(uri: &str) -> Command {
    let mut command = Command::new("ssh");
    command.args(ssh::arguments(&uri::remote(uri), &ALIVE)).arg(REMOTE);
    command
}

/// What is sent to [`REMOTE`].
fn sent(program: &Program<'_>) -> std::result::Result<String, String> {
    let variables = program.env.iter().chain([&LOCALE]).map(|(name, value)| format!("{name}={value}"));
    let all: Vec<String> =
        variables.chain([program.name.to_owned()]).chain(program.args.iter().map(|&arg| arg.to_owned())).collect();
    if let Some(odd) = all.iter().find(|argument| argument.contains(['\n', '\0'])) {
        return Err(format!("{odd:?} can't be an argument on another machine: it has a line break in it"));
    }
    let mut text: String = all.iter().map(|argument| format!("+{argument}\n")).collect();
    text.push_str(".\n");
    text.push_str(&program.input);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// What sshd does with it: a shell runs the text.
    fn run(shell: &str, input: &str) -> (Option<i32>, String) {
        let mut command = std::process::Command::new(shell);
        let child = command.args(["-c", REMOTE]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = child.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn arguments_arrive_as_they_are() {
        let odd = ["", ".", "+", " a  b ", "'\"`$(id)${HOME}\\n!*?;&|", "ä\u{7f}\t", "-n", "#"];
        let args = [&["%s\\n"], &odd[..]].concat();
        let program =
            |args| Program { name: "printf", package: "", args, env: &[], input: String::new(), deadline: None };
        for shell in ["sh", "bash"] {
            let (code, printed) = run(shell, &sent(&program(&args)).unwrap());
            assert_eq!((code, printed), (Some(0), odd.join("\n") + "\n"), "{shell}");
        }
        let input = "the rest\n+is its own\n.\n".to_owned();
        let cat = Program { name: "cat", input: input.clone(), ..program(&["-"]) };
        assert_eq!(run("sh", &sent(&cat).unwrap()), (Some(0), input));
        let env = Program { name: "printenv", env: &[("A", "b c")], ..program(&["A", "LC_ALL"]) };
        assert_eq!(run("sh", &sent(&env).unwrap()).1, "b c\nC.UTF-8\n");
        let none = Program { name: "no-such-program", ..program(&[]) };
        assert_eq!(run("sh", &sent(&none).unwrap()).0, Some(NOT_FOUND));
        assert!(sent(&program(&["a\nb"])).unwrap_err().contains("line break"));
    }

    #[test]
    fn one_that_is_cut_off_starts_nothing() {
        let touch =
            Program { name: "echo", package: "", args: &["started"], env: &[], input: String::new(), deadline: None };
        let whole = sent(&touch).unwrap();
        for length in 0..whole.len() - 1 {
            assert_eq!(run("sh", &whole[..length]), (Some(125), String::new()), "{length}");
        }
    }
}
