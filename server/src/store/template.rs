//! Templates and their copies on nodes.

use super::{Store, failed, from_json, is_taken, name_key, parse_uuid, task::close_journal, to_json};
use crate::{Error, Result};
use api::Time;
use serde::{Deserialize, Serialize};
use sqlx::{Any, Row, Transaction, any::AnyRow};
use uuid::Uuid;

/// A template.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateRecord {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// What is being done with it as a whole.
    pub phase: TemplatePhase,
    /// The rest.
    pub spec: TemplateSpec,
    /// When it was asked for.
    pub created_at: Time,
}

/// What is being done with a template as a whole.
///
/// ```text
/// creating ──> ready ──> deleting ──> (gone)
///    └──> (gone: unwound)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplatePhase {
    /// It is being copied into its pool, or that is being unwound.
    Creating,
    /// VMs can be made from it.
    Ready,
    /// It is being deleted, which is never taken back.
    Deleting,
}

impl TemplatePhase {
    fn as_str(self) -> &'static str {
        match self {
            TemplatePhase::Creating => "creating",
            TemplatePhase::Ready => "ready",
            TemplatePhase::Deleting => "deleting",
        }
    }

    fn parse(text: &str) -> Result<TemplatePhase> {
        [TemplatePhase::Creating, TemplatePhase::Ready, TemplatePhase::Deleting]
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or_else(|| Error::Internal(format!("the database has {text:?} for a template's phase")))
    }
}

/// What a template is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateSpec {
    /// The operating system, in the user's words.
    pub os: Option<String>,
    /// Whether it reads a NoCloud seed.
    pub cloud_init: bool,
    /// Whether it has a guest agent.
    pub guest_agent: bool,
    /// The user that cloud-init sets up.
    pub default_user: Option<String>,
    /// `qcow2` or `raw`.
    pub format: String,
    /// Virtual size, in bytes.
    pub virtual_bytes: u64,
}

/// A template's image on a node.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyRecord {
    /// The template.
    pub template: Uuid,
    /// The node.
    pub node: String,
    /// The pool.
    pub pool: Uuid,
    /// The pool's name.
    pub pool_name: String,
    /// libvirt's name for the volume.
    pub file: String,
    /// Where it is on the node.
    pub path: String,
}

impl Store {
    /// Adds a template. Its name may be taken.
    pub async fn insert_template(&self, template: &TemplateRecord) -> Result<()> {
        let inserted = sqlx::query(
            "insert into template (id, name, name_key, phase, spec, created_at, revision)
             values ($1, $2, $3, $4, $5, $6, 1)",
        )
        .bind(template.id.to_string())
        .bind(&template.name)
        .bind(name_key(&template.name))
        .bind(template.phase.as_str())
        .bind(to_json(&template.spec)?)
        .bind(template.created_at.0)
        .execute(&self.pool)
        .await;
        self.changed();
        match inserted {
            Ok(_) => Ok(()),
            Err(error) if is_taken(&error) => Err(Error::exists("template", &template.name)),
            Err(error) => Err(failed("add a template")(error)),
        }
    }

    /// Adds a template's first copy, makes it ready and ends the journal of the task that made it, in one: from here on a
    /// crash takes nothing back.
    pub async fn template_is_ready(&self, copy: &CopyRecord, task: Uuid) -> Result<()> {
        let mut transaction = self.begin().await?;
        insert_copy(&mut transaction, copy).await?;
        sqlx::query("update template set phase = 'ready', revision = revision + 1 where id = $1")
            .bind(copy.template.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(failed("make a template ready"))?;
        close_journal(&mut transaction, task).await?;
        self.commit(transaction, "make a template ready").await
    }

    /// Adds a further copy of a template that is still ready, and ends the journal of the task that made it, in one.
    pub async fn insert_template_copy(&self, copy: &CopyRecord, task: Uuid) -> Result<()> {
        let mut transaction = self.begin().await?;
        // The write comes first: it keeps Store::mark_template_deleting out, or sees what that has done.
        let ready = sqlx::query("update template set revision = revision + 1 where id = $1 and phase = 'ready'")
            .bind(copy.template.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(failed("add a template's copy"))?;
        if ready.rows_affected() == 0 {
            return Err(Error::WrongState {
                detail: "the template was deleted while it was copied".to_owned(),
                hint: None,
            });
        }
        insert_copy(&mut transaction, copy).await?;
        close_journal(&mut transaction, task).await?;
        self.commit(transaction, "add a template's copy").await
    }

    /// Marks a template as being deleted, unless a volume stands on it: returns whether it was marked.
    pub async fn mark_template_deleting(&self, id: Uuid) -> Result<bool> {
        let mut transaction = self.begin().await?;
        let id = id.to_string();
        // The write comes first: it keeps Store::insert_volume out until the count below has decided.
        sqlx::query("update template set phase = 'deleting', revision = revision + 1 where id = $1")
            .bind(&id)
            .execute(&mut *transaction)
            .await
            .map_err(failed("mark a template"))?;
        let row = sqlx::query("select count(*) as n from volume where template = $1")
            .bind(&id)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed("mark a template"))?;
        if row.get::<i64, _>("n") > 0 {
            transaction.rollback().await.map_err(failed("mark a template"))?;
            return Ok(false);
        }
        self.commit(transaction, "mark a template").await?;
        Ok(true)
    }

    /// Forgets a template with its copies, whose images are gone.
    pub async fn forget_template(&self, id: Uuid) -> Result<()> {
        let mut transaction = self.begin().await?;
        for sql in [
            "delete from made where exists
             (select 1 from template_copy c where c.template = $1 and c.pool = made.pool and c.file = made.file)",
            "delete from template_copy where template = $1",
            "delete from template where id = $1",
        ] {
            sqlx::query(sql)
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(failed("forget a template"))?;
        }
        self.commit(transaction, "forget a template").await
    }

    /// The template of this name or id.
    pub async fn template(&self, reference: &str) -> Result<Option<TemplateRecord>> {
        let row = sqlx::query("select id, name, phase, spec, created_at from template where id = $1 or name_key = $2")
            .bind(reference.to_lowercase())
            .bind(name_key(reference))
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("read a template"))?;
        row.as_ref().map(read).transpose()
    }

    /// All templates, by name.
    pub async fn templates(&self) -> Result<Vec<TemplateRecord>> {
        let rows = sqlx::query("select id, name, phase, spec, created_at from template order by name_key")
            .fetch_all(&self.pool)
            .await
            .map_err(failed("read the templates"))?;
        rows.iter().map(read).collect()
    }

    /// All copies of all templates, or of one.
    pub async fn template_copies(&self, template: Option<Uuid>) -> Result<Vec<CopyRecord>> {
        let rows = sqlx::query(
            "select template, node, pool, pool_name, file, path from template_copy
             where $1 = '' or template = $1 order by node",
        )
        .bind(template.map(|id| id.to_string()).unwrap_or_default())
        .fetch_all(&self.pool)
        .await
        .map_err(failed("read the copies of a template"))?;
        let read = |row: &AnyRow| {
            Ok(CopyRecord {
                template: parse_uuid(row.get("template"))?,
                node: row.get("node"),
                pool: parse_uuid(row.get("pool"))?,
                pool_name: row.get("pool_name"),
                file: row.get("file"),
                path: row.get("path"),
            })
        };
        rows.iter().map(read).collect()
    }
}

async fn insert_copy(transaction: &mut Transaction<'_, Any>, copy: &CopyRecord) -> Result<()> {
    sqlx::query(
        "insert into template_copy (template, node, pool, pool_name, file, path) values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(copy.template.to_string())
    .bind(&copy.node)
    .bind(copy.pool.to_string())
    .bind(&copy.pool_name)
    .bind(&copy.file)
    .bind(&copy.path)
    .execute(&mut **transaction)
    .await
    .map(|_| ())
    .map_err(failed("add a template's copy"))
}

fn read(row: &AnyRow) -> Result<TemplateRecord> {
    Ok(TemplateRecord {
        id: parse_uuid(row.get("id"))?,
        name: row.get("name"),
        phase: TemplatePhase::parse(row.get("phase"))?,
        spec: from_json(row.get("spec"))?,
        created_at: Time(row.get("created_at")),
    })
}
