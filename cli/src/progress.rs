//! One line on the terminal that says how far a task is. Where standard error is no terminal, there is none.

use crate::human;
use api::task::{StepState, Task, TaskState};
use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

/// As wide as the narrowest usual terminal: a line that wraps can't be cleared.
const WIDTH: usize = 79;
/// The bar's width.
const BAR: usize = 20;

/// The line. It is cleared when this is dropped.
pub struct Progress {
    terminal: bool,
    begun: Instant,
    drawn: bool,
}

impl Progress {
    /// A line that isn't drawn yet.
    pub fn new() -> Progress {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Progress { terminal: std::io::stderr().is_terminal() && !dumb, begun: Instant::now(), drawn: false }
    }

    /// Whether somebody sees it.
    pub fn is_shown(&self) -> bool {
        self.terminal
    }

    /// Shows how far the task is.
    pub fn show(&mut self, task: &Task) {
        self.draw(&text(task, self.begun.elapsed()));
    }

    /// Shows that the server doesn't answer.
    pub fn show_away(&mut self) {
        self.draw("the server doesn't answer, waiting for it");
    }

    fn draw(&mut self, text: &str) {
        if self.terminal {
            self.drawn = true;
            let text: String = text.chars().take(WIDTH).collect();
            // Nobody needs to know of a terminal that can't be written to.
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K{text}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn text(task: &Task, elapsed: Duration) -> String {
    let step = match task.state {
        TaskState::Unwinding => "taking back what was made".to_owned(),
        _ => {
            let at_work = task.steps.iter().rev().find(|step| step.state == StepState::Started);
            at_work.or(task.steps.last()).map_or_else(|| "waiting".to_owned(), |step| step.name.clone())
        }
    };
    let bar = match task.progress_percent {
        Some(percent) if task.state == TaskState::Running => {
            let full = ((percent / 100.0 * BAR as f64) as usize).min(BAR);
            format!(" [{}{}] {percent:.0} %", "#".repeat(full), "-".repeat(BAR - full))
        }
        _ => String::new(),
    };
    let time = human::duration(elapsed.as_millis() as i64);
    format!("{} {}: {step}{bar} {time}", task.method, task.target.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_line_says_step_bytes_and_time() {
        let time = "2026-11-24T18:36:26.660Z";
        let step = |name: &str, state: &str| json!({"name": name, "state": state, "started_at": time});
        let mut task = json!({
            "id": "01a20ed8-bc66-714c-a880-ff4890515a7a", "method": "register-template", "caller": "admin",
            "target": {"kind": "template", "id": "01a20ed8-bc66-714c-a880-ff4890515a7b", "name": "debian12"},
            "state": "running", "progress_percent": 42.4, "created_at": time,
            "steps": [step("record-template", "done"), step("copy-image", "started")],
        });
        let line = |task: &serde_json::Value| {
            text(&serde_json::from_value(task.clone()).unwrap(), Duration::from_millis(3200))
        };
        assert_eq!(line(&task), "register-template debian12: copy-image [########------------] 42 % 3.2 s");
        task["progress_percent"] = json!(null);
        task["steps"] = json!([]);
        assert_eq!(line(&task), "register-template debian12: waiting 3.2 s");
        task["state"] = json!("unwinding");
        assert_eq!(line(&task), "register-template debian12: taking back what was made 3.2 s");
    }
}
