//! Commands in guests.

use super::{Subject, guest_agent};
use crate::{
    Context, Error, Result,
    task::{Outline, Task, Work},
};
use api::guest::{Encoding, ExecInVm, ExecutedInVm};
use base64::{Engine, engine::general_purpose::STANDARD};
use hypervisor::{ErrorKind, domain::Ended};
use std::time::{Duration, Instant};

/// How long a command has, when the caller doesn't say.
const TIMEOUT_S: u32 = 30;
/// The most that is told of what it prints, in bytes of each channel.
const PRINTED_MAX: usize = 1 << 20;
/// How often it is looked at: at first, and at most.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// `exec-in-vm`. No lock is held: a command that runs for long is in nobody's way.
pub async fn exec(context: Context, request: ExecInVm) -> Result<Work<ExecutedInVm>> {
    let vm = Subject::find(&context.app, &request.vm)?;
    let power = vm.power(&context.app).await?;
    guest_agent::look(&vm, power).await?;
    let outline = Outline::of(&["run-command"]).on(&vm.node);
    Ok(Work::new(vm.target(), Vec::new(), outline, move |task: Task| async move {
        let (pid, ended) = task.last_step("run-command", None, run(&vm, request)).await?;
        let running = ended.is_none();
        let ended = ended.unwrap_or(Ended {
            exit_code: None,
            signal: None,
            stdout: Vec::new(),
            stderr: Vec::new(),
            truncated: false,
        });
        let truncated = ended.truncated || ended.stdout.len() > PRINTED_MAX || ended.stderr.len() > PRINTED_MAX;
        let ((stdout, stdout_encoding), (stderr, stderr_encoding)) = (told(ended.stdout), told(ended.stderr));
        Ok(ExecutedInVm {
            vm: task.app.index.to_wire(vm.id)?,
            pid,
            running,
            exit_code: ended.exit_code,
            signal: ended.signal,
            stdout: Some(stdout),
            stdout_encoding,
            stderr: Some(stderr),
            stderr_encoding,
            truncated,
            secret_expired: false,
        })
    }))
}

/// Runs the command, and waits until it has ended or its time is over.
async fn run(vm: &Subject, request: ExecInVm) -> Result<(i64, Option<Ended>)> {
    let ExecInVm { vm: _, command, stdin, timeout_s } = request;
    let started = vm.node.start_in_guest(vm.id, &command, stdin.as_deref()).await;
    let pid = started.map_err(|error| guest_agent::explain(error, vm))?;
    let deadline = Instant::now() + Duration::from_secs(timeout_s.unwrap_or(TIMEOUT_S).into());
    let mut pause = LOOK.0;
    loop {
        match vm.node.ended_in_guest(vm.id, pid).await {
            Ok(Some(ended)) => return Ok((pid, Some(ended))),
            Ok(None) => {}
            Err(error) if error.kind == ErrorKind::Unavailable && Instant::now() < deadline => {}
            Err(error) => return Err(lost(vm, pid, &error)),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok((pid, None));
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(LOOK.1);
    }
}

fn lost(vm: &Subject, pid: i64, error: &hypervisor::Error) -> Error {
    let name = vm.entry.name();
    match error.kind {
        ErrorKind::Failed => Error::Unsupported {
            detail: format!(
                "what came of process {pid} in the guest of VM {name} can't be brought over: {}",
                error.cause
            ),
            hint: Some("it may have printed too much: let it write into a file, and print a part of that".to_owned()),
        },
        _ => Error::AgentUnavailable {
            detail: format!("what came of process {pid} in the guest of VM {name} isn't known: {}", error.cause),
            hint: "it may go on, or have printed more than an agent can bring over; look in the guest, or let it write into a file"
                .to_owned(),
        },
    }
}

/// Text where it is text, else base64; of what is too long the beginning.
fn told(mut bytes: Vec<u8>) -> (String, Encoding) {
    let cut = bytes.len() > PRINTED_MAX;
    bytes.truncate(PRINTED_MAX);
    match String::from_utf8(bytes) {
        Ok(text) => (text, Encoding::Text),
        // Cut within a character.
        Err(error) if cut && error.utf8_error().error_len().is_none() => {
            let valid = error.utf8_error().valid_up_to();
            let mut bytes = error.into_bytes();
            bytes.truncate(valid);
            (String::from_utf8(bytes).unwrap_or_default(), Encoding::Text)
        }
        Err(error) => (STANDARD.encode(error.as_bytes()), Encoding::Base64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_told() {
        assert_eq!(told(b"a\n".to_vec()), ("a\n".to_owned(), Encoding::Text));
        assert_eq!(told(vec![0xff, 0]), ("/wA=".to_owned(), Encoding::Base64));
        let mut long = "x".repeat(PRINTED_MAX - 1).into_bytes();
        long.extend("\u{e9}\u{e9}".bytes());
        let (text, encoding) = told(long);
        assert_eq!((text.len(), encoding), (PRINTED_MAX - 1, Encoding::Text));
    }
}
