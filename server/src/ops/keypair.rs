//! SSH keypairs.

use super::page;
use crate::{
    App, Context, Error, Result,
    keygen::{self, NewKey},
    ssh_key::PublicKey,
    store::KeypairRecord,
    task::{Outline, Undo, Work},
};
use api::{
    Page, Time,
    keypair::{
        CreateKeypair, CreatedKeypair, DeleteKeypair, DeletedKeypair, DescribeKeypair, ImportKeypair, Keypair,
        Keypairs, ListKeypairs, NewKeyAlgorithm,
    },
    task::Target,
};
use uuid::Uuid;

/// `create-keypair`
pub async fn create(context: Context, request: CreateKeypair) -> Result<Work<CreatedKeypair>> {
    let (id, name) = free(&context.app, request.name).await?;
    let key = match (request.algorithm, request.bits) {
        (NewKeyAlgorithm::Ed25519, None) => NewKey::Ed25519,
        (NewKeyAlgorithm::Ed25519, Some(_)) => {
            return Err(Error::field("bits", "is for RSA keys only: an Ed25519 key has 256 bits"));
        }
        (NewKeyAlgorithm::Rsa, bits) => NewKey::Rsa(bits.unwrap_or(3072)),
    };
    let outline = Outline::of(&["make-key", "record-keypair"]);
    Ok(Work::new(target(id, &name), Vec::new(), outline, move |task| async move {
        let comment = request.comment.as_deref().unwrap_or(&name);
        let made = task.unless_cancelled(keygen::generate(key, comment));
        let (public, private) = task.step("make-key", None, made).await?;
        let record = KeypairRecord { id, name, public_key: public.line.clone(), created_at: Time::now() };
        // A keypair whose private key nobody was told is worthless: a task that is cut off takes it back.
        let undo = Undo::ForgetKeypair { keypair: id };
        task.step("record-keypair", Some(undo), task.app.store.insert_keypair(&record)).await?;
        Ok(CreatedKeypair { record: wire(record, public), private_key: Some(private), secret_expired: false })
    }))
}

/// `import-keypair`
pub async fn import(context: Context, request: ImportKeypair) -> Result<Work<Keypair>> {
    let public = PublicKey::read(&request.public_key).map_err(|why| Error::field("public_key", why))?;
    let (id, name) = free(&context.app, request.name).await?;
    let outline = Outline::of(&["record-keypair"]);
    Ok(Work::new(target(id, &name), Vec::new(), outline, move |task| async move {
        let record = KeypairRecord { id, name, public_key: public.line.clone(), created_at: Time::now() };
        let undo = Undo::ForgetKeypair { keypair: id };
        task.step("record-keypair", Some(undo), task.app.store.insert_keypair(&record)).await?;
        Ok(wire(record, public))
    }))
}

/// `list-keypairs`
pub async fn list(context: Context, request: ListKeypairs) -> Result<Keypairs> {
    let mut keypairs = context.app.store.keypairs().await?;
    // By bytes, as the cursor compares; a database may have another order.
    keypairs.sort_by_key(|keypair| keypair.name.to_lowercase());
    let page = Page { limit: request.limit, cursor: request.cursor };
    let cut = page::cut(keypairs, &page, |keypair| keypair.name.to_lowercase())?;
    let rows: Result<_> = cut.rows.into_iter().map(read).collect();
    Ok(Keypairs { keypairs: rows?, next_cursor: cut.next_cursor, total: cut.total })
}

/// `describe-keypair`
pub async fn describe(context: Context, request: DescribeKeypair) -> Result<Keypair> {
    read(get(&context.app, &request.keypair).await?)
}

/// `delete-keypair`
pub async fn delete(context: Context, request: DeleteKeypair) -> Result<Work<DeletedKeypair>> {
    let record = get(&context.app, &request.keypair).await?;
    let outline = Outline::of(&["forget-keypair"]);
    Ok(Work::new(target(record.id, &record.name), Vec::new(), outline, move |task| async move {
        task.last_step("forget-keypair", None, task.app.store.forget_keypair(record.id)).await?;
        Ok(DeletedKeypair { id: record.id, name: record.name })
    }))
}

/// The public keys that a request gives a user: those in `<parent>ssh_keys` and those of the keypairs that it names. A key that
/// is given twice is there once.
pub async fn authorized(app: &App, parent: &str, ssh_keys: &[String], keypairs: &[String]) -> Result<Vec<PublicKey>> {
    let mut keys: Vec<PublicKey> = Vec::new();
    let mut add = |key: PublicKey| {
        if keys.iter().all(|known| known.fingerprint != key.fingerprint) {
            keys.push(key);
        }
    };
    for (at, text) in ssh_keys.iter().enumerate() {
        add(PublicKey::read(text).map_err(|why| Error::field(format!("{parent}ssh_keys[{at}]"), why))?);
    }
    for reference in keypairs {
        add(public_key(&get(app, reference).await?)?);
    }
    Ok(keys)
}

/// The keypair of this name or id.
async fn get(app: &App, reference: &str) -> Result<KeypairRecord> {
    app.store.keypair(reference).await?.ok_or_else(|| Error::not_found("keypair", reference))
}

/// A name for a new keypair, which nobody has, and its id.
async fn free(app: &App, name: String) -> Result<(Uuid, String)> {
    match app.store.keypair(&name).await? {
        Some(_) => Err(Error::exists("keypair", name)),
        None => Ok((Uuid::now_v7(), name)),
    }
}

fn target(id: Uuid, name: &str) -> Target {
    Target { kind: "keypair".to_owned(), id, name: name.to_owned() }
}

fn public_key(record: &KeypairRecord) -> Result<PublicKey> {
    PublicKey::read(&record.public_key)
        .map_err(|why| Error::Internal(format!("the public key of keypair {} {why}", record.name)))
}

fn read(record: KeypairRecord) -> Result<Keypair> {
    let public = public_key(&record)?;
    Ok(wire(record, public))
}

fn wire(record: KeypairRecord, public: PublicKey) -> Keypair {
    Keypair {
        id: record.id,
        name: record.name,
        algorithm: public.algorithm,
        bits: public.bits,
        fingerprint: public.fingerprint,
        public_key: public.line,
        comment: public.comment,
        created_at: record.created_at,
    }
}
