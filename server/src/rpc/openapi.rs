//! The OpenAPI 3.1 document, made from the table: <https://spec.openapis.org/oas/v3.1.1.html>.

use super::{Method, Table};
use crate::problem;
use api::{
    Access, Code, Problem,
    plan::Planned,
    task::{Accepted, Mutation},
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The document.
pub fn openapi(table: &Table) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let problem = reference(&mut generator, |generator| generator.subschema_for::<Problem>());
    let accepted = reference(&mut generator, |generator| generator.subschema_for::<Accepted>());
    let planned = reference(&mut generator, |generator| generator.subschema_for::<Planned>());
    let paths: Map<String, Value> = table
        .methods
        .values()
        .map(|method| {
            (
                format!("/api/{}", method.info.name),
                json!({ "post": operation(method, &mut generator, &problem, (&accepted, &planned)) }),
            )
        })
        .collect();
    let mutation = Mutation::json_schema(&mut generator).to_value();
    let mut schemas = Value::Object(generator.take_definitions(true));
    for method in table.methods.values().filter(|method| method.info.mutates) {
        add_mutation(&mut schemas, &request_name(method), &mutation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Vmyard",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Manages virtual machines on libvirt/QEMU. Every method is `POST /api/<verb>-<noun>` with a JSON object.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ "token": [] }, { "session": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "session": {
                    "type": "apiKey", "in": "cookie", "name": super::browser::COOKIE,
                    "description": "By sign-in. Needs an Origin header that names this server.",
                },
            },
            "schemas": schemas,
        },
    })
}

fn operation(
    method: &Method,
    generator: &mut SchemaGenerator,
    problem: &Value,
    (accepted, planned): (&Value, &Value),
) -> Value {
    let request = reference(generator, method.request);
    let reply = reference(generator, method.reply);
    let text = description(generator, &request_name(method));
    let (summary, _) = text.split_once(". ").unwrap_or((text.trim_end_matches('.'), ""));
    let body = |schema: &Value, description: &str| json!({ "description": description, "content": { "application/json": { "schema": schema } } });
    let mut responses = Map::new();
    if !method.info.mutates {
        responses.insert("200".to_owned(), body(&reply, "Done."));
    } else {
        let either = json!({ "anyOf": [reply, planned] });
        responses.insert("200".to_owned(), body(&either, "Done; or, with `plan`, what would be done."));
        responses.insert("202".to_owned(), body(accepted, "The task goes on."));
    }
    for (status, codes) in problem_statuses() {
        let description = codes.iter().map(|code| format!("`{}`", code.as_str())).collect::<Vec<_>>().join(", ");
        let content =
            json!({ "description": description, "content": { "application/problem+json": { "schema": problem } } });
        responses.insert(status.to_string(), content);
    }
    let mut operation = json!({
        "operationId": method.info.name,
        "summary": summary,
        "description": text,
        "x-access": method.info.access.as_str(),
        "requestBody": { "required": true, "content": { "application/json": { "schema": request } } },
        "responses": responses,
    });
    if method.info.access == Access::Anyone {
        operation["security"] = json!([]);
    }
    operation
}

/// Every status that an error can have, with its codes.
fn problem_statuses() -> BTreeMap<u16, Vec<Code>> {
    let mut statuses = BTreeMap::<u16, Vec<Code>>::new();
    for code in Code::ALL {
        statuses.entry(problem::status(code)).or_default().push(code);
    }
    statuses
}

/// The schema's reference; its definition is kept by the generator.
fn reference(generator: &mut SchemaGenerator, schema: impl Fn(&mut SchemaGenerator) -> schemars::Schema) -> Value {
    schema(generator).to_value()
}

/// The name of a method's request in the schemas: `CreateVm` for `create-vm`.
fn request_name(method: &Method) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    method.info.name.split('-').map(capital).collect()
}

fn description(generator: &SchemaGenerator, name: &str) -> String {
    let text = generator.definitions().get(name).and_then(|schema| schema.get("description")).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

/// Mutating methods have the fields of [`Mutation`] beside their own.
fn add_mutation(schemas: &mut Value, name: &str, mutation: &Value) {
    let own = schemas.get_mut(name).and_then(|schema| schema.get_mut("properties")).and_then(Value::as_object_mut);
    if let (Some(own), Some(common)) = (own, mutation.get("properties").and_then(Value::as_object)) {
        own.extend(common.clone());
    }
}
