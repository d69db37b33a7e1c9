//! API tokens.

use super::page;
use crate::{
    Context, Error, Result,
    auth::{ADMIN, Secret},
    store::TokenRecord,
    task::{Outline, Undo, Work},
};
use api::{
    Page, Time,
    task::Target,
    token::{CreateToken, CreatedToken, DeleteToken, DeletedToken, ListTokens, Token, Tokens},
};
use uuid::Uuid;

/// `create-token`
pub async fn create(context: Context, request: CreateToken) -> Result<Work<CreatedToken>> {
    let app = &context.app;
    let now = Time::now();
    if let Some(time) = request.expires_at.filter(|time| *time <= now) {
        return Err(Error::field("expires_at", format!("must be in the future, is {time}; now it is {now}")));
    }
    if app.store.token_named(&request.name).await?.is_some() {
        return Err(Error::exists("token", request.name));
    }
    let (secret, hash) = Secret::Token.generate()?;
    let record = TokenRecord {
        id: Uuid::now_v7(),
        name: request.name,
        hash,
        role: request.role,
        expires_at: request.expires_at,
        created_at: now,
    };
    let outline = Outline::of(&["record-token"]);
    Ok(Work::new(target(&record), Vec::new(), outline, move |task| async move {
        // A token whose secret nobody was told is worthless: a task that is cut off takes it back.
        let undo = Undo::ForgetToken { token: record.id };
        task.step("record-token", Some(undo), task.app.store.insert_token(&record)).await?;
        Ok(CreatedToken { record: wire(record), token: Some(secret), secret_expired: false })
    }))
}

/// `list-tokens`
pub async fn list(context: Context, request: ListTokens) -> Result<Tokens> {
    let mut tokens = context.app.store.tokens().await?;
    // By bytes, as the cursor compares; a database may have another order.
    tokens.sort_by_key(|token| token.name.to_lowercase());
    let page = Page { limit: request.limit, cursor: request.cursor };
    let cut = page::cut(tokens, &page, |token| token.name.to_lowercase())?;
    Ok(Tokens { tokens: cut.rows.into_iter().map(wire).collect(), next_cursor: cut.next_cursor, total: cut.total })
}

/// `delete-token`
pub async fn delete(context: Context, request: DeleteToken) -> Result<Work<DeletedToken>> {
    let found = context.app.store.token_named(&request.token).await?;
    let record = found.ok_or_else(|| Error::not_found("token", request.token))?;
    // The one token that is always there. So there always is an administrator.
    if record.name == ADMIN {
        return Err(Error::WrongState {
            detail: format!("token {ADMIN} is the one in admin.token, which the server sees to at each start"),
            hint: Some(
                "to replace it, remove admin.token from the data directory and start the server again: it makes a new one, \
                 and the old one is worthless then; VMs keep running"
                    .to_owned(),
            ),
        });
    }
    let outline = Outline::of(&["forget-token"]);
    Ok(Work::new(target(&record), Vec::new(), outline, move |task| async move {
        task.last_step("forget-token", None, task.app.store.forget_token(record.id)).await?;
        Ok(DeletedToken { id: record.id, name: record.name })
    }))
}

fn target(record: &TokenRecord) -> Target {
    Target { kind: "token".to_owned(), id: record.id, name: record.name.clone() }
}

fn wire(record: TokenRecord) -> Token {
    Token {
        id: record.id,
        name: record.name,
        role: record.role,
        expires_at: record.expires_at,
        expired: record.expires_at.is_some_and(|time| time <= Time::now()),
        created_at: record.created_at,
    }
}
