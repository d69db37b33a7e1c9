//! Running a task: the journal's writes, the wait for its end, the unwinding.

use super::{
    Held, Outline, Undo,
    cancel::Cancels,
    crash::{self, Point},
    secrets::Secrets,
};
use crate::{
    App, Error, Result,
    auth::Caller,
    problem,
    store::{AuditRecord, ClientToken, Ended, StepBegun, StepRecord, TaskBegun, TaskRecord},
    sync::lock,
};
use api::{
    Time,
    plan::Plan,
    task::{StepState, Target, TaskState},
};
use futures::{FutureExt, future::BoxFuture};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

/// Pauses between attempts to end a task: its node may be away, or the database's disk full.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// A mutating call that has passed its checks: what it works on, the locks it holds, and the rest of it.
pub struct Work<R> {
    target: Target,
    held: Vec<Held>,
    outline: Outline,
    at_once: bool,
    run: Run<R>,
}

type Run<R> = Box<dyn FnOnce(Task) -> BoxFuture<'static, Result<R>> + Send>;

impl<R> Work<R> {
    /// The rest of a call, which holds these locks until it has ended or is unwound, and does what is outlined.
    pub fn new<F>(
        target: Target,
        held: Vec<Held>,
        outline: Outline,
        run: impl FnOnce(Task) -> F + Send + 'static,
    ) -> Work<R>
    where
        F: Future<Output = Result<R>> + Send + 'static,
    {
        Work { target, held, outline, at_once: false, run: Box::new(move |task| run(task).boxed()) }
    }

    /// The same for one whose first step begins at once, and no other beside it: the task is journalled with it, a write less. It is
    /// refused, and there was no task, when that can't be written.
    pub fn at_once(self) -> Work<R> {
        Work { at_once: true, ..self }
    }

    /// What it would do. It isn't done.
    pub async fn into_plan(self, method: &str) -> Result<Plan> {
        self.outline.into_plan(method, self.target).await
    }
}

/// A task at work.
#[derive(Clone)]
pub struct Task {
    /// The server.
    pub app: App,
    /// Its id.
    pub id: Uuid,
    next_step: Arc<AtomicI64>,
    /// Steps whose end is not journalled yet. It is with the next one's beginning, or the task's end: a write less for each, and
    /// an undo treats a begun step like a done one.
    ended: Arc<Mutex<Vec<Ended>>>,
    foretold: Arc<Mutex<Foretold>>,
    opens: Opens,
    /// What it answers, as JSON, once that is in the journal: it is done, whatever comes after.
    closed: Arc<OnceLock<String>>,
}

/// Of a task that is not in the journal yet, but is to be with its first step: what is written then, and who waits for that.
type Opens = Arc<Mutex<Option<(Arc<TaskBegun>, oneshot::Sender<()>)>>>;

/// Steps that are journalled before their turn.
#[derive(Default)]
struct Foretold {
    /// Those that go with the next write.
    asked: Vec<(String, Option<Undo>)>,
    /// Those that are written: number, name and undo.
    written: Vec<(i64, String, Option<String>)>,
}

impl Task {
    /// Has a step's beginning journalled with that of the next step, for one that comes right after it or beside it: a write less.
    /// It is still run by [`Task::step`], with the same name and undo.
    pub fn foretell(&self, name: &str, undo: Option<Undo>) {
        lock(&self.foretold).asked.push((name.to_owned(), undo));
    }

    /// Runs a step: journals `undo`, then does `action`. `name` says what it does.
    /// A task that has been cancelled begins no step.
    pub async fn step<T>(&self, name: &str, undo: Option<Undo>, action: impl Future<Output = Result<T>>) -> Result<T> {
        self.go_on(false)?;
        self.run_step(name, undo, action).await
    }

    /// Runs the step from which on the task can't be cancelled: the last one of a creation, the mark of a deletion, the
    /// one call that a start stands for. Steps may follow. `undo` is for one that may be cut off in its middle.
    pub async fn last_step<T>(
        &self,
        name: &str,
        undo: Option<Undo>,
        action: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.go_on(true)?;
        self.run_step(name, undo, action).await
    }

    /// Runs a step that is one transaction of the database: its beginning is journalled in it, so `undo` is known if, and only if, it
    /// has come about. `last`: from it on the task can't be cancelled, as with [`Task::last_step`].
    pub async fn step_in_store<T, F>(
        &self,
        name: &str,
        undo: Option<Undo>,
        last: bool,
        action: impl FnOnce(Arc<StepBegun>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.go_on(last)?;
        self.in_store(name, self.begin(name, undo)?, action).await
    }

    /// Runs the last step, where that is one transaction of the database: in it the task ends, a write less. `reply` is what it
    /// answers, without secrets. What comes after must be short: that the task is done can be read, and its locks are held.
    pub async fn end_in_store<R, F>(
        &self,
        name: &str,
        reply: &R,
        action: impl FnOnce(Arc<StepBegun>) -> F,
    ) -> Result<()>
    where
        R: Serialize,
        F: Future<Output = Result<()>>,
    {
        self.go_on(true)?;
        let reply = serde_json::to_string(reply).map_err(unwritten)?;
        let step = StepBegun { closes: Some(reply.clone()), ..self.begin(name, None)? };
        self.in_store(name, step, |step| async {
            self.app.tasks.is_ending(self.id);
            action(step).await?;
            let _ = self.closed.set(reply);
            Ok(())
        })
        .await
    }

    async fn in_store<T, F>(&self, name: &str, step: StepBegun, action: impl FnOnce(Arc<StepBegun>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let step = Arc::new(step);
        let done = async {
            crash::at(name, Point::Before)?;
            action(Arc::clone(&step)).await
        };
        let done = self.written(&step, done.await);
        self.end(step.seq, name, done)
    }

    async fn run_step<T>(&self, name: &str, undo: Option<Undo>, action: impl Future<Output = Result<T>>) -> Result<T> {
        let seq = match self.foretold(name, undo.as_ref())? {
            Some(seq) => seq,
            None => {
                let step = self.begin(name, undo)?;
                self.written(&step, self.app.store.insert_step(&step).await)?;
                step.seq
            }
        };
        crash::at(name, Point::Before)?;
        self.end(seq, name, action.await)
    }

    /// The number of a step that is journalled already.
    fn foretold(&self, name: &str, undo: Option<&Undo>) -> Result<Option<i64>> {
        let undo = undo.map(written_undo).transpose()?;
        let written = &mut lock(&self.foretold).written;
        let at = written.iter().position(|(_, its_name, its_undo)| its_name == name && *its_undo == undo);
        Ok(at.map(|at| written.swap_remove(at).0))
    }

    /// Notes what the write of a step's beginning has brought, or has not.
    fn written<T>(&self, step: &StepBegun, done: Result<T>) -> Result<T> {
        match &done {
            Ok(_) => {
                let foretold = step.foretold.iter().map(|one| (one.seq, one.name.clone(), one.undo.clone()));
                lock(&self.foretold).written.extend(foretold);
                if step.opens.is_some() {
                    self.app.store.events_told();
                    self.is_in_journal();
                }
            }
            Err(_) => lock(&self.ended).extend(step.ended.iter().copied()),
        }
        done
    }

    /// Lets whoever began the task go on: it is in the journal.
    fn is_in_journal(&self) {
        if let Some((_, opened)) = lock(&self.opens).take() {
            let _ = opened.send(());
        }
    }

    /// Notes that a step has ended. What failed because it was cancelled is said to have been cancelled.
    fn end<T>(&self, seq: i64, name: &str, done: Result<T>) -> Result<T> {
        let value = done.map_err(|error| if self.is_cancelled() { Error::Cancelled } else { error })?;
        crash::at(name, Point::After)?;
        lock(&self.ended).push(Ended { seq, at: Time::now() });
        Ok(value)
    }

    /// What is journalled of a step's beginning.
    fn begin(&self, name: &str, undo: Option<Undo>) -> Result<StepBegun> {
        let one = |name: &str, undo: Option<Undo>| {
            Ok::<_, Error>(StepBegun {
                opens: None,
                task: self.id,
                seq: self.next_step.fetch_add(1, Ordering::SeqCst),
                name: name.to_owned(),
                undo: undo.as_ref().map(written_undo).transpose()?,
                makes: undo.as_ref().and_then(Undo::makes),
                ended: Vec::new(),
                foretold: Vec::new(),
                closes: None,
            })
        };
        let mut step = one(name, undo)?;
        let asked = std::mem::take(&mut lock(&self.foretold).asked);
        step.foretold = asked.into_iter().map(|(name, undo)| one(&name, undo)).collect::<Result<_>>()?;
        step.ended = std::mem::take(&mut *lock(&self.ended));
        step.opens = lock(&self.opens).as_ref().map(|(begun, _)| Arc::clone(begun));
        Ok(step)
    }

    /// Notes how many bytes of a copy are done, and says whether to go on with it. May be called often: only whole
    /// percents are journalled.
    pub fn progress(&self, done: u64, total: u64) -> bool {
        let percent = (done.saturating_mul(100) / total.max(1)) as i64;
        let progress = lock(&self.app.tasks.progress).insert(self.id, percent);
        if progress != Some(percent) {
            let (store, id) = (self.app.store.clone(), self.id);
            self.app.tasks.tracker.spawn_on(
                async move {
                    if let Err(error) = store.set_task_progress(id, percent * 100).await {
                        tracing::warn!(%error, "progress not journalled");
                    }
                },
                &self.app.tasks.runtime,
            );
        }
        !self.is_cancelled()
    }
}

/// A reply that can't be turned into JSON or back.
fn unwritten(error: serde_json::Error) -> Error {
    Error::Internal(format!("write a reply: {error}"))
}

/// An undo as the journal has it.
fn written_undo(undo: &Undo) -> Result<String> {
    serde_json::to_string(undo).map_err(|error| Error::Internal(format!("journal an undo: {error}")))
}

/// The tasks at work in this process.
pub struct Tasks {
    tracker: TaskTracker,
    pub(super) runtime: tokio::runtime::Handle,
    stopping: CancellationToken,
    progress: Mutex<HashMap<Uuid, i64>>,
    pub(super) cancels: Arc<Cancels>,
    pub(super) secrets: Arc<Secrets>,
}

impl Tasks {
    /// No task is at work yet. Must be called within the runtime.
    pub fn new() -> Tasks {
        Tasks {
            tracker: TaskTracker::new(),
            runtime: tokio::runtime::Handle::current(),
            stopping: CancellationToken::new(),
            progress: Mutex::default(),
            cancels: Arc::default(),
            secrets: Arc::default(),
        }
    }

    /// Does something beside the tasks that may be cut off at any moment; a stop of the server waits for it as for a task.
    pub fn in_background(&self, work: impl Future<Output = crate::Result<()>> + Send + 'static) {
        self.tracker.spawn(async move {
            if let Err(error) = work.await {
                tracing::warn!(%error, "work in the background failed");
            }
        });
    }

    /// Takes no new task from now on, and waits for those at work; what hasn't ended by the deadline is left in the
    /// journal for the next start.
    pub async fn stop(&self, deadline: Duration) {
        self.stopping.cancel();
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = self.tracker.len(), "tasks are left to the next start");
        }
    }

    /// How many percent of its bytes a task at work has copied, if it copies any.
    pub fn progress_of(&self, task: Uuid) -> Option<u64> {
        lock(&self.progress).get(&task).map(|percent| percent.unsigned_abs())
    }

    /// Whether the server goes down.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }
}

impl Default for Tasks {
    fn default() -> Tasks {
        Tasks::new()
    }
}

/// How a task ended, once it has.
pub type Outcome<R> = watch::Receiver<Option<Result<Arc<R>>>>;

/// A task that was started: its id, and its outcome when it has ended.
pub struct Started<R> {
    /// Its id.
    pub id: Uuid,
    outcome: Outcome<R>,
}

impl<R> Started<R> {
    /// Its outcome, for several to wait for.
    pub fn into_outcome(self) -> Outcome<R> {
        self.outcome
    }

    /// The outcome, unless the deadline passes first. The task goes on either way.
    pub async fn wait(&mut self, deadline: Duration) -> Option<Result<Arc<R>>> {
        let ended = tokio::time::timeout(deadline, self.outcome.wait_for(Option::is_some)).await;
        match ended {
            Ok(Ok(outcome)) => outcome.clone(),
            Ok(Err(_)) => Some(Err(Error::Internal("a task went away without an outcome".to_owned()))),
            Err(_) => None,
        }
    }
}

/// The call that becomes a task.
pub struct Call<'a> {
    /// The task's id.
    pub id: Uuid,
    /// The method.
    pub method: &'static str,
    /// The fields of its reply that are secret.
    pub secrets: &'static [&'static str],
    /// Who calls.
    pub caller: &'a Caller,
    /// The client token.
    pub token: Option<&'a ClientToken>,
    /// The entry in the audit; task and target are added here.
    pub entry: AuditRecord,
}

/// Journals work, with the call's entry in the audit, and runs it on a task of its own.
pub async fn start<R>(app: &App, call: Call<'_>, work: Work<R>) -> Result<Started<R>>
where
    R: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    if app.tasks.is_stopping() {
        return Err(Error::ShuttingDown);
    }
    let Call { id, method, secrets, caller, token, entry } = call;
    let entry = AuditRecord { task: Some(id), target: Some(work.target.clone()), ..entry };
    let record = TaskRecord {
        id,
        method: method.to_owned(),
        target: work.target,
        caller: caller.name.clone(),
        state: TaskState::Running,
        progress: None,
        result: None,
        error: None,
        created_at: Time::now(),
        finished_at: None,
    };
    let begun = TaskBegun { task: record, token: token.cloned(), entry };
    // Before anybody can know of it.
    let at_work = app.tasks.at_work(id);
    let (opened, is_open) = oneshot::channel();
    let opens = match work.at_once {
        true => Some((Arc::new(begun), opened)),
        false => {
            app.store.insert_task(&begun.task, token, Some(&begun.entry)).await?;
            let _ = opened.send(());
            None
        }
    };
    let (sender, outcome) = watch::channel(None);
    let task = Task {
        app: app.clone(),
        id,
        next_step: Arc::default(),
        ended: Arc::default(),
        foretold: Arc::default(),
        opens: Arc::new(Mutex::new(opens)),
        closed: Arc::default(),
    };
    let (owner, held, run) = (caller.token, work.held, work.run);
    app.tasks.tracker.spawn(async move {
        let ran = AssertUnwindSafe(run(task.clone())).catch_unwind().await;
        let result = ran.unwrap_or_else(|_| Err(Error::Internal(format!("{method} panicked"))));
        if let Err(error) = &result {
            tracing::warn!(%error, %id, method, "task failed");
        }
        let app = &task.app;
        let without_secrets = |reply: &mut Value| app.tasks.take_secrets(id, owner, secrets, reply);
        let result = conclude(&task, result, held, without_secrets).await;
        lock(&app.tasks.progress).remove(&id);
        sender.send_replace(Some(result));
        // Tells whoever waits for its beginning that there was none.
        lock(&task.opens).take();
        drop(at_work);
        if task.closed.get().is_some() {
            // Not before others can have what it held.
            app.store.events_told();
        }
    });
    if is_open.await.is_err()
        && let Some(Err(error)) = &*outcome.borrow()
    {
        // It ended before it was in the journal, and so there was no task.
        return Err(error.clone());
    }
    Ok(Started { id, outcome })
}

/// Journals the end of a task, with its reply without secrets, unless its last step has; unwinds one that failed.
async fn conclude<R: Serialize + DeserializeOwned>(
    task: &Task,
    result: Result<R>,
    held: Vec<Held>,
    without_secrets: impl FnOnce(&mut Value),
) -> Result<Arc<R>> {
    if let Some(written) = task.closed.get() {
        return result.or_else(|_| serde_json::from_str(written).map_err(unwritten)).map(Arc::new);
    }
    let (app, id) = (&task.app, task.id);
    let ended = std::mem::take(&mut *lock(&task.ended));
    match result {
        Ok(reply) => {
            let mut written = serde_json::to_value(&reply).map_err(unwritten)?;
            without_secrets(&mut written);
            let written = written.to_string();
            // The work is done: that the journal can't say so yet doesn't make it undone.
            if !try_to_end(app, id, &written, &ended).await {
                drop(held);
                try_again(app, move |app| {
                    let (written, ended) = (written.clone(), ended.clone());
                    async move { try_to_end(&app, id, &written, &ended).await }
                });
            }
            Ok(Arc::new(reply))
        }
        Err(error) => {
            if let Err(error) = app.store.end_steps(id, &ended).await {
                tracing::warn!(%error, %id, "the ends of steps are not journalled");
            }
            unwind(app, id, &error, held).await;
            // Unwinding may have brought it to its end instead.
            let ended = app.store.task(id).await.ok().flatten().filter(|task| task.state == TaskState::Done);
            let reply = ended.and_then(|task| serde_json::from_str(&task.result?).ok());
            reply.map(Arc::new).ok_or(error)
        }
    }
}

/// Takes back what a task has made. What can't be taken back now is tried again in the background until it is done,
/// with the locks held.
pub(super) async fn unwind(app: &App, id: Uuid, why: &Error, held: Vec<Held>) {
    let problem = serde_json::to_string(&problem::to_wire(why, None, Some(id))).ok();
    if try_unwind(app, id, &problem).await {
        return;
    }
    try_again(app, move |app| {
        // The locks live as long as this does.
        let (problem, _) = (problem.clone(), &held);
        async move { try_unwind(&app, id, &problem).await }
    });
}

/// Tries something in the background until it has come about, or the server stops.
fn try_again<F>(app: &App, attempt: impl Fn(App) -> F + Send + 'static)
where
    F: Future<Output = bool> + Send,
{
    let app = app.clone();
    // Not tracked: a stop of the server must not wait for a node that is away.
    tokio::spawn(async move {
        let mut pause = PAUSE.0;
        while !app.tasks.is_stopping() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
            if attempt(app.clone()).await {
                break;
            }
        }
    });
}

/// Whether the end of a task that is done is journalled.
async fn try_to_end(app: &App, id: Uuid, reply: &str, ended: &[Ended]) -> bool {
    app.tasks.is_ending(id);
    let journalled = app.store.task_is_done(id, reply, ended).await;
    journalled.inspect_err(|error| tracing::error!(%error, %id, "a task's end is not journalled yet")).is_ok()
}

/// Looks at a VM whose task was taken back, while that still has its locks: else it would seem that somebody else has changed it.
async fn look_again(app: &App, target: &Target) {
    let entry = app.index.get(target.id);
    if let Some(node) = entry.and_then(|entry| app.node(&entry.node).ok()) {
        crate::observe::refresh_after(app, &node, target.id).await;
    }
}

/// Whether everything is taken back.
async fn try_unwind(app: &App, id: Uuid, problem: &Option<String>) -> bool {
    let unwound = async {
        let steps = app.store.steps(id).await?;
        let open: Vec<&StepRecord> =
            steps.iter().rev().filter(|step| step.undo.is_some() && step.state != StepState::Undone).collect();
        let took_back = !open.is_empty();
        if took_back {
            app.store.set_task_state(id, TaskState::Unwinding, None, problem.clone()).await?;
        }
        for step in open {
            let undo: Undo = serde_json::from_str(step.undo.as_deref().unwrap_or_default())
                .map_err(|error| Error::Internal(format!("the journal has an undo that can't be read: {error}")))?;
            undo.run(app).await?;
            crash::at(&step.name, Point::Undone)?;
            app.store.set_step_state(id, step.seq, StepState::Undone).await?;
        }
        let task = app.store.task(id).await?;
        if let Some(task) = task.as_ref().filter(|_| took_back) {
            look_again(app, &task.target).await;
        }
        app.tasks.is_ending(id);
        match task {
            // It never began, since its first step could not be written.
            None => Ok(()),
            // What was cut off has been brought to its end instead.
            Some(task) if task.result.is_some() => super::recover::finish(app, &task).await,
            Some(_) => app.store.set_task_state(id, TaskState::Failed, None, problem.clone()).await,
        }
    };
    match unwound.await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, %id, "not unwound yet");
            false
        }
    }
}
