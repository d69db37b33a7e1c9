//! From the method table to HTTP: routing, access, reading requests, waiting for tasks, answering.

mod http;
mod openapi;
mod replay;
mod request;

pub use http::router;
pub use openapi::openapi;

use crate::{
    Context, Error, Result,
    store::ClientToken,
    task::{self, Work},
};
use api::{Access, Problem, Rpc, task::Accepted};
use futures::{FutureExt, future::BoxFuture};
use replay::Replays;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use uuid::Uuid;

/// The longest wait for a task.
const WAIT: Duration = Duration::from_secs(300);

/// The methods, by name.
#[derive(Default)]
pub struct Table {
    methods: BTreeMap<&'static str, Method>,
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
                Ok(Answer::Done(request::to_value(&reply)?))
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
                    return replay::answer(&app, first, wait).await;
                }
                let work = f(context, request).await?;
                let mut started = task::start(&app, id, R::NAME, &caller, token.as_ref(), work).await?;
                drop(claim);
                let outcome = if wait.is_zero() { None } else { started.wait(wait).await };
                match outcome {
                    Some(Ok(reply)) => Ok(Answer::Done(request::to_value(&*reply)?)),
                    Some(Err(error)) => Ok(Answer::Failed(error, started.id)),
                    None => {
                        let task = crate::ops::task::to_wire(&app, started.id).await?;
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

    /// Calls a method for somebody: the one place where access is checked.
    pub(crate) async fn call(&self, name: &str, context: Context, fields: Map<String, Value>) -> Result<Answer> {
        let method = self.methods.get(name).ok_or_else(|| Error::NoSuchMethod(name.to_owned()))?;
        if context.caller.role < method.info.access {
            return Err(Error::Forbidden { method: name.to_owned(), needs: method.info.access.as_str() });
        }
        (method.call)(context, fields).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{App, Config, admission::Admission, app::Parts, auth::Caller, index::Index, store::Store, task};

    async fn app() -> App {
        App::new(Parts {
            config: Config::default(),
            store: Store::open("sqlite::memory:").await.unwrap(),
            nodes: BTreeMap::new(),
            index: Index::new(Vec::new(), std::iter::empty()),
            locks: task::Locks::default(),
            admission: Admission::default(),
            tasks: task::Tasks::new(),
            recovered: true.into(),
            started_at: api::Time::now(),
            replay_key: crate::auth::ReplayKey([0; 32]),
        })
    }

    #[tokio::test]
    async fn every_method_keeps_smaller_roles_out() {
        let (app, table) = (app().await, crate::methods::table());
        for method in table.methods() {
            for role in [Access::Viewer, Access::Operator, Access::Administrator] {
                let caller = Caller { name: "somebody".into(), role };
                let context = Context { app: app.clone(), caller, task: Uuid::now_v7() };
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
