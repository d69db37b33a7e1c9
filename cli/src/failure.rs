//! Why a command failed, in words and as an exit code.

use api::Problem;
use std::{fmt, process::ExitCode};
use uuid::Uuid;

/// What `vmyard --help` says of the exit codes.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the server refused or failed; the error says why, with its code and request id
  2  the command's arguments are wrong, or there is no token
  3  the server can't be reached, or what answers is no Vmyard
  4  the work goes on as a task, longer than was waited for: vmyard task wait ID";

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The command's arguments don't go together.
    Usage(String),
    /// The server can't be reached, or what answers is no Vmyard.
    Unreachable(String),
    /// The server refused or failed.
    Problem(Box<Problem>),
    /// The work goes on, for longer than anybody waited.
    Pending(Uuid),
    /// A command in a guest has not ended well.
    Ended {
        /// Its exit code.
        code: u8,
        /// How it ended.
        text: String,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Unreachable(text) => write!(f, "error: {text}"),
            Failure::Ended { text, .. } => write!(f, "{text}"),
            Failure::Pending(task) => {
                write!(
                    f,
                    "the work goes on as task {task}\nhint: vmyard task wait {task}, or: vmyard task cancel {task}"
                )
            }
            Failure::Problem(problem) => {
                write!(f, "error: {} ({})", problem.detail, problem.code.as_str())?;
                if let Some(hint) = &problem.hint {
                    write!(f, "\nhint: {hint}")?;
                }
                if let Some(task) = problem.task {
                    write!(f, "\ntask: {task}")?;
                }
                match problem.request_id {
                    Some(id) => write!(f, "\nrequest id: {id}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Failure {
    /// The command's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Problem(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
            Failure::Pending(_) => 4,
            Failure::Ended { code, .. } => *code,
        })
    }
}
