//! From the method table to HTTP: routing, access, reading requests, waiting for tasks, answering.

mod browser;
mod http;
mod openapi;
mod replay;
mod request;
mod sockets;
mod stream;
mod strict;

pub use http::router;
pub use openapi::openapi;

use crate::{
    Context, Error, Result,
    ops::session::Change,
    problem,
    store::{AuditRecord, ClientToken},
    task::{self, Call as TaskCall, Work},
};
use api::{
    Access, Problem, Rpc,
    plan::Planned,
    task::{Accepted, Target},
};
use futures::{FutureExt, future::BoxFuture};
use replay::Replays;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use uuid::Uuid;

/// The longest wait for a task.
const WAIT: Duration = Duration::from_secs(300);

/// The methods, by name.
#[derive(Default)]
pub struct Table {
    methods: BTreeMap<&'static str, Method>,
    /// Those that change nothing, and whose calls are in the audit all the same.
    audited: BTreeSet<&'static str>,
    replays: Arc<Replays>,
}

/// A method: what the router needs to call it and the reference needs to describe it.
struct Method {
    info: MethodInfo,
    call: Call,
    request: fn(&mut SchemaGenerator) -> Schema,
    reply: fn(&mut SchemaGenerator) -> Schema,
}

type Call = Box<dyn Fn(Context, Map<String, Value>) -> BoxFuture<'static, Result<Answer>> + Send + Sync>;

/// What is known of a method beside its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodInfo {
    /// Its name: `POST /api/<name>`.
    pub name: &'static str,
    /// The least role that may call it.
    pub access: Access,
    /// Whether it changes something, and so is a task.
    pub mutates: bool,
}

/// What a call answers.
pub(crate) enum Answer {
    /// 200 with the reply.
    Done(Value),
    /// 200 with the reply as JSON text: a page of a thousand rows isn't made into a tree of values first.
    Read(String),
    /// 200 with the reply, and what becomes of the caller's session.
    Session(Value, Change),
    /// 202 with the task.
    Accepted(Value),
    /// The task has failed.
    Failed(Error, Uuid),
    /// The task that was asked for before has failed.
    Problem(Box<Problem>),
}

impl Table {
    /// Adds a method that only reads. Name, access and schemas come from the function's request type.
    pub fn read<R, F, Fut>(mut self, f: F) -> Table
    where
        R: Rpc,
        F: Fn(Context, R) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R::Reply>> + Send + 'static,
    {
        let f = Arc::new(f);
        let call: Call = Box::new(move |context, fields| {
            let f = Arc::clone(&f);
            async move {
                let reply = f(context, request::read::<R>(fields)?).await?;
                Ok(Answer::Read(request::to_text(&reply)?))
            }
            .boxed()
        });
        self.add::<R>(call, false);
        self
    }

    /// Adds a method that changes nothing, but lets somebody see into a VM or into it: that goes into the audit.
    pub fn open<R, F, Fut>(mut self, f: F) -> Table
    where
        R: Rpc,
        F: Fn(Context, R) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(R::Reply, Target)>> + Send + 'static,
    {
        let f = Arc::new(f);
        let call: Call = Box::new(move |context, fields| {
            let f = Arc::clone(&f);
            async move {
                let (app, entry) = (context.app.clone(), context.audit(R::NAME, "accepted"));
                let (reply, target) = f(context, request::read::<R>(fields)?).await?;
                // What isn't in the audit is not given out.
                app.store.insert_audit(&AuditRecord { target: Some(target), ..entry }).await?;
                Ok(Answer::Read(request::to_text(&reply)?))
            }
            .boxed()
        });
        self.add::<R>(call, false);
        self.audited.insert(R::NAME);
        self
    }

    /// Adds a method that begins or ends a session. It writes its entries in the audit itself.
    pub fn session<R, F, Fut>(mut self, f: F) -> Table
    where
        R: Rpc,
        F: Fn(Context, R) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(R::Reply, Change)>> + Send + 'static,
    {
        let f = Arc::new(f);
        let call: Call = Box::new(move |context, fields| {
            let f = Arc::clone(&f);
            async move {
                let (reply, change) = f(context, request::read::<R>(fields)?).await?;
                Ok(Answer::Session(request::to_value(&reply)?, change))
            }
            .boxed()
        });
        self.add::<R>(call, false);
        self
    }

    /// Adds a method that changes something. The function checks and locks; what it returns becomes a task.
    pub fn work<R, F, Fut>(mut self, f: F) -> Table
    where
        R: Rpc,
        R::Reply: Sync,
        F: Fn(Context, R) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Work<R::Reply>>> + Send + 'static,
    {
        let f = Arc::new(f);
        let replays = Arc::clone(&self.replays);
        let call: Call = Box::new(move |context, mut fields| {
            let (f, replays) = (Arc::clone(&f), Arc::clone(&replays));
            async move {
                let mutation = request::take_mutation(&mut fields)?;
                if mutation.plan == Some(true) {
                    let app = context.app.for_plan();
                    let work = f(Context { app, ..context }, request::read::<R>(fields)?).await?;
                    let plan = work.into_plan(R::NAME).await?;
                    return Ok(Answer::Done(request::to_value(&Planned { plan })?));
                }
                let (app, id, caller) = (context.app.clone(), context.task, context.caller.clone());
                if app.tasks.is_stopping() {
                    return Err(Error::ShuttingDown);
                }
                let wait = if mutation.wait.unwrap_or(true) { WAIT } else { Duration::ZERO };
                let token = mutation.client_token.map(|token| ClientToken {
                    caller: caller.name.clone(),
                    method: R::NAME.to_owned(),
                    token,
                    body_hash: request::hash(&app.replay_key, &fields),
                });
                let request = request::read::<R>(fields)?;
                // Held until the task is in the journal, where the next call under the same token finds it.
                let claim = match &token {
                    Some(token) => Some(replays.claim(token).await),
                    None => None,
                };
                if let Some(token) = &token
                    && let Some(first) = replay::first_task(&app, token).await?
                {
                    let entry = AuditRecord { task: Some(first), ..context.audit(R::NAME, "repeated") };
                    app.store.insert_audit(&entry).await?;
                    return replay::answer(&app, &caller, first, wait).await;
                }
                let entry = context.audit(R::NAME, "accepted");
                let work = f(context, request).await?;
                let (method, secrets, token) = (R::NAME, R::SECRETS, token.as_ref());
                let call = TaskCall { id, method, secrets, caller: &caller, token, entry };
                let mut started = task::start(&app, call, work).await?;
                drop(claim);
                let outcome = if wait.is_zero() { None } else { started.wait(wait).await };
                match outcome {
                    Some(Ok(reply)) => Ok(Answer::Done(request::to_value(&*reply)?)),
                    Some(Err(error)) => Ok(Answer::Failed(error, started.id)),
                    None => {
                        let task = crate::ops::task::for_caller(&app, &caller, started.id).await?;
                        Ok(Answer::Accepted(request::to_value(&Accepted { task })?))
                    }
                }
            }
            .boxed()
        });
        self.add::<R>(call, true);
        self
    }

    fn add<R: Rpc>(&mut self, call: Call, mutates: bool) {
        let method = Method {
            info: MethodInfo { name: R::NAME, access: R::ACCESS, mutates },
            call,
            request: |generator| generator.subschema_for::<R>(),
            reply: |generator| generator.subschema_for::<R::Reply>(),
        };
        self.methods.insert(R::NAME, method);
    }

    /// All methods, by name.
    pub fn methods(&self) -> impl Iterator<Item = MethodInfo> + '_ {
        self.methods.values().map(|method| method.info)
    }

    /// The name of the method that is called so; `None` where there is none.
    pub(crate) fn name_of(&self, name: &str) -> Option<&'static str> {
        self.methods.get(name).map(|method| method.info.name)
    }

    /// Whether a method may be called by whoever comes.
    pub(crate) fn is_open(&self, name: &str) -> bool {
        self.methods.get(name).is_some_and(|method| method.info.access == Access::Anyone)
    }

    /// Calls a method for somebody: the one place where access is checked. That a change was refused goes into the audit;
    /// one that is accepted is written there with its task.
    pub(crate) async fn call(&self, name: &str, context: Context, fields: Map<String, Value>) -> Result<Answer> {
        let method = self.methods.get(name).ok_or_else(|| Error::NoSuchMethod(name.to_owned()))?;
        let (app, entry) = (context.app.clone(), context.audit(name, "refused"));
        let asks_only = fields.get("plan") == Some(&Value::Bool(true));
        let answer = match context.caller.role < method.info.access {
            true => Err(Error::Forbidden { method: name.to_owned(), needs: method.info.access.as_str() }),
            false => (method.call)(context, fields).await,
        };
        if let Err(error) = &answer
            && (method.info.mutates || self.audited.contains(name))
            && (!asks_only || matches!(error, Error::Forbidden { .. }))
        {
            let entry = AuditRecord { outcome: problem::code(error).as_str().to_owned(), ..entry };
            if let Err(error) = app.store.insert_audit(&entry).await {
                tracing::error!(%error, method = name, "a refused call is not in the audit");
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{App, Config, app::Parts, auth::Caller, index::Index, store::Store, task};

    async fn app() -> App {
        App::new(Parts {
            config: Config::default(),
            store: Store::open("sqlite::memory:").await.unwrap(),
            installation: Default::default(),
            nodes: crate::nodes::Nodes::new(tokio::sync::mpsc::unbounded_channel().0),
            node_events: tokio::sync::mpsc::unbounded_channel().0,
            drift: Default::default(),
            events: Default::default(),
            copies: crate::copies::Copies::default(),
            manifests: Default::default(),
            metrics: std::sync::Arc::new(crate::metrics::Metrics::begin(Default::default(), None).await.0),
            later: crate::later::Later::default(),
            credential_checks: Default::default(),
            consoles: crate::console::Consoles::default(),
            index: Index::new(Vec::new(), Vec::new(), std::iter::empty(), Default::default(), Default::default()),
            tasks: task::Tasks::new(),
            recovered: true.into(),
            started_at: api::Time::now(),
            attempts: crate::attempts::Attempts::default(),
            replay_key: crate::auth::ReplayKey([0; 32]),
        })
    }

    #[tokio::test]
    async fn every_method_keeps_smaller_roles_out() {
        let (app, table) = (app().await, crate::methods::table());
        for method in table.methods() {
            for role in [Access::Anyone, Access::Viewer, Access::Operator, Access::Administrator] {
                let caller = Caller { name: "somebody".into(), role, ..Caller::anyone() };
                let (task, request_id) = (Uuid::now_v7(), Uuid::now_v7());
                let reached = crate::app::Reached::default();
                let context = Context { app: app.clone(), caller, task, request_id, remote: None, reached };
                // A request that no method takes: whoever may call it is told so, nobody else learns even that.
                let fields = Map::from_iter([("no_such_field".to_owned(), Value::Null)]);
                let error = table.call(method.name, context, fields).await.err().unwrap();
                match role < method.access {
                    true => assert!(matches!(error, Error::Forbidden { .. }), "{}: {error}", method.name),
                    false => assert!(matches!(error, Error::Invalid(_)), "{}: {error}", method.name),
                }
            }
            assert!(!method.mutates || method.access > Access::Viewer, "{} changes something for viewers", method.name);
        }
    }
}
