//! The HTTP side: one route for all methods, and those that are no methods.

use super::{Answer, Table, browser, openapi, request, sockets, stream};
use crate::{App, Context, Error, Result, auth, auth::Caller, metrics::export, problem};
use api::Problem;
use axum::{
    Extension, Router,
    body::Body,
    extract::{ConnectInfo, Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::StreamExt;
use serde_json::json;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

/// How long a client has to send its body.
const BODY: Duration = Duration::from_secs(30);
/// The header with the request's id, on every answer.
const REQUEST_ID: &str = "x-request-id";

/// The path of the OpenAPI document.
const OPENAPI: &str = "/api/openapi.json";

pub(super) struct Shared {
    pub(super) app: App,
    table: Table,
    /// As it is sent: the tree that it is made of would take ten times as much for good.
    openapi: String,
}

/// The server's routes.
pub fn router(app: App, table: Table) -> Router {
    let openapi = openapi(&table).to_string();
    let shared = Arc::new(Shared { app, table, openapi });
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route(OPENAPI, get(document))
        .route("/metrics", get(metrics))
        .route("/api/events", get(stream::events))
        .route("/api/{method}", post(call))
        .route("/api/vnc-console/{vm}", get(sockets::vnc))
        .route("/api/serial-console/{vm}", get(sockets::serial))
        .route("/api/recordings/{id}", get(sockets::recording))
        .method_not_allowed_fallback(wrong_verb)
        .fallback(no_such_path)
        .layer(middleware::from_fn(with_request_id))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            respond_error(&Error::Internal("a handler panicked".to_owned()), Uuid::now_v7())
        }))
        .with_state(shared)
}

/// Gives every request an id: the client's, where it sends a UUID, else a new one.
async fn with_request_id(mut request: Request, next: Next) -> Response {
    let sent = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok()?.parse::<Uuid>().ok());
    let id = sent.unwrap_or_else(Uuid::now_v7);
    let (method, path, begun) = (request.method().clone(), request.uri().path().to_owned(), Instant::now());
    request.extensions_mut().insert(id);
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    tracing::info!(request_id = %id, %method, path, status = response.status().as_u16(), ms = begun.elapsed().as_millis() as u64, "request");
    response
}

async fn call(
    State(shared): State<Arc<Shared>>,
    method: std::result::Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    // A name that isn't even UTF-8 is none of ours.
    let Ok(Path(method)) = method else { return no_such_path(request).await };
    let id = request.extensions().get::<Uuid>().copied().unwrap_or_else(Uuid::now_v7);
    let https = matches!(browser::page(request.headers()), Ok(browser::Page::Ours { https: true }));
    let (begun, app, name) = (Instant::now(), shared.app.clone(), shared.table.name_of(&method));
    // On a task of its own: a client that hangs up must not cut a call in half.
    let called = tokio::spawn(async move { try_call(&shared, &method, id, request).await }).await;
    let called = called.unwrap_or_else(|_| Err(Error::Internal("a call panicked".to_owned())));
    // A name that is no method's could be anything.
    if let Some(method) = name {
        let labels = export::MethodLabels { method, outcome: outcome(&called) };
        app.metrics.latency.get_or_create(&labels).observe(begun.elapsed().as_secs_f64());
    }
    match called {
        Ok(Answer::Done(reply)) => respond(StatusCode::OK, "application/json", reply.to_string()),
        Ok(Answer::Read(reply)) => respond(StatusCode::OK, "application/json", reply),
        Ok(Answer::Session(reply, change)) => {
            let mut response = respond(StatusCode::OK, "application/json", reply.to_string());
            if let Ok(mut cookie) = HeaderValue::from_str(&browser::set_cookie(&change, https)) {
                cookie.set_sensitive(true);
                response.headers_mut().insert(header::SET_COOKIE, cookie);
            }
            response
        }
        Ok(Answer::Accepted(reply)) => respond(StatusCode::ACCEPTED, "application/json", reply.to_string()),
        Ok(Answer::Failed(error, task)) => respond_problem(&problem::to_wire(&error, Some(id), Some(task))),
        Ok(Answer::Problem(problem)) => respond_problem(&Problem { request_id: Some(id), ..*problem }),
        Err(error) => respond_error(&error, id),
    }
}

/// What came of a call, in a word.
fn outcome(called: &Result<Answer>) -> &'static str {
    match called {
        Ok(Answer::Done(_) | Answer::Read(_) | Answer::Session(..)) => "ok",
        Ok(Answer::Accepted(_)) => "accepted",
        Ok(Answer::Failed(error, _)) | Err(error) => problem::code(error).as_str(),
        Ok(Answer::Problem(problem)) => problem.code.as_str(),
    }
}

async fn try_call(shared: &Shared, method: &str, request_id: Uuid, request: Request) -> Result<Answer> {
    let (remote, reached) = (remote(&request), browser::reached(request.headers()));
    let caller = match shared.table.is_open(method) {
        // No page of somebody else may sign a browser in, either.
        true => browser::page(request.headers()).map(|_| Caller::anyone())?,
        false => authenticate(&shared.app, request.headers()).await?,
    };
    // What a web page can send without asking first (form, text/plain) is never taken for a call.
    let json = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !json
        .is_some_and(|kind| kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json"))
    {
        return Err(Error::field("", "the request needs the header 'Content-Type: application/json'"));
    }
    let body = tokio::time::timeout(BODY, read_body(request.into_body())).await;
    let body = body.map_err(|_| Error::field("", format!("the body did not arrive within {} s", BODY.as_secs())))??;
    let context = Context { app: shared.app.clone(), caller, task: Uuid::now_v7(), request_id, remote, reached };
    shared.table.call(method, context, request::parse(&body)?).await
}

/// The address that a request came from.
fn remote(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical())
}

async fn read_body(body: Body) -> Result<Vec<u8>> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Error::field("", format!("the body broke off: {error}")))?;
        if bytes.len() + chunk.len() > request::BODY_MAX {
            return Err(Error::TooLarge(request::BODY_MAX));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

pub(super) async fn authenticate(app: &App, headers: &HeaderMap) -> Result<Caller> {
    // No page can make a browser send a token, so that needs no look at where it comes from.
    if !headers.contains_key(header::AUTHORIZATION) && browser::session(headers).is_some() {
        browser::must_be_ours(headers)?;
    }
    authenticate_reader(app, headers).await
}

/// The same for what only reads. Browsers don't say from which page such a request comes when it is one of ours, and keep the
/// answer from any other.
pub(super) async fn authenticate_reader(app: &App, headers: &HeaderMap) -> Result<Caller> {
    let header = match (headers.get(header::AUTHORIZATION), browser::session(headers)) {
        (Some(header), _) => header,
        (None, Some(session)) => {
            browser::page(headers)?;
            return auth::authenticate_session(&app.store, session).await;
        }
        (None, None) => return Err(Error::Unauthenticated("a token is needed")),
    };
    let token = header.to_str().ok().and_then(|value| value.split_once(' '));
    match token {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            auth::authenticate(&app.store, token.trim()).await
        }
        _ => Err(Error::Unauthenticated("the Authorization header must be 'Bearer TOKEN'")),
    }
}

/// Ready: the database answers, and what the last server left is taken back as far as its nodes can be reached.
async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let app = &shared.app;
    let database = app.store.ping().await;
    let recovered = app.is_recovered();
    let stopping = app.tasks.is_stopping();
    let status = match database.is_ok() && recovered && !stopping {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({ "database": database.is_ok(), "recovered": recovered, "stopping": stopping });
    respond(status, "application/json", body.to_string())
}

async fn document(State(shared): State<Arc<Shared>>) -> Response {
    respond(StatusCode::OK, "application/json", shared.openapi.clone())
}

/// What a Prometheus reads; for viewers.
async fn metrics(State(shared): State<Arc<Shared>>, Extension(id): Extension<Uuid>, headers: HeaderMap) -> Response {
    let text = async {
        // Whoever has a token is a viewer at least.
        authenticate_reader(&shared.app, &headers).await?;
        export::export(&shared.app).await
    };
    match text.await {
        Ok(text) => respond(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text),
        Err(error) => respond_error(&error, id),
    }
}

async fn wrong_verb(request: Request) -> Response {
    let id = request.extensions().get::<Uuid>().copied().unwrap_or_else(Uuid::now_v7);
    let path = request.uri().path();
    let is_method = path.starts_with("/api/") && path != OPENAPI;
    let (allowed, text) = match is_method && path.matches('/').count() == 2 {
        true => ("POST", "methods are called by POST".to_owned()),
        false => ("GET, HEAD", format!("{path} is read by GET")),
    };
    let error = Error::field("", format!("{text}, not by {}", request.method()));
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let problem = Problem { status: status.as_u16(), ..problem::to_wire(&error, Some(id), None) };
    let mut response = respond_problem(&problem);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

async fn no_such_path(request: Request) -> Response {
    let id = request.extensions().get::<Uuid>().copied().unwrap_or_else(Uuid::now_v7);
    respond_error(&Error::NoSuchMethod(request.uri().path().to_owned()), id)
}

pub(super) fn respond_error(error: &Error, request_id: Uuid) -> Response {
    respond_problem(&problem::to_wire(error, Some(request_id), None))
}

fn respond_problem(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = serde_json::to_string(problem).unwrap_or_default();
    let mut response = respond(status, "application/problem+json", text);
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

pub(super) fn respond(status: StatusCode, kind: &'static str, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], Body::from(body)).into_response()
}
