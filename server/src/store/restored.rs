//! A database that was restored, or made again: whose it is, and what nobody goes on with in it.

use super::{Store, failed, parse_uuid, to_json};
use crate::Result;
use api::{Problem, Time};
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

impl Store {
    /// Which Vmyard this is. A new database gets an id.
    pub async fn installation(&self) -> Result<Uuid> {
        let read = || async {
            let row = sqlx::query("select id from installation").fetch_optional(&self.pool).await;
            let row = row.map_err(failed("read which installation this is"))?;
            row.map(|row| parse_uuid(row.get("id"))).transpose()
        };
        if let Some(known) = read().await? {
            return Ok(known);
        }
        let id = Uuid::new_v4();
        self.set_installation(id).await?;
        Ok(id)
    }

    /// Says which Vmyard this is. Tables without a place for it get it with the next migration.
    pub async fn set_installation(&self, id: Uuid) -> Result<()> {
        let doing = "note which installation this is";
        let mut transaction = self.begin().await?;
        sqlx::query("delete from installation").execute(&mut *transaction).await.map_err(failed(doing))?;
        let query = sqlx::query("insert into installation (id, created_at) values ($1, $2)");
        let query = query.bind(id.to_string()).bind(Time::now().0);
        query.execute(&mut *transaction).await.map_err(failed(doing))?;
        transaction.commit().await.map_err(failed(doing))
    }

    /// In words, something that somebody has worked on with this database; `None` for one that is as good as new.
    pub async fn first_row_of_work(&self) -> Result<Option<String>> {
        for table in ["vm", "template", "volume", "task"] {
            let sql = format!("select count(*) as n from {table}");
            let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&self.pool).await;
            let count: i64 = row.map_err(failed("look whether the database is empty"))?.get("n");
            if count > 0 {
                return Ok(Some(format!("{count} {}s", if table == "vm" { "VM" } else { table })));
            }
        }
        Ok(None)
    }

    /// Ends the tasks that were at work when a backup was made, without taking anything back: what became of them later isn't known.
    /// `problem` is what is said of them. Nobody is signed in any more.
    pub async fn end_what_was_at_work(&self, problem: &Problem) -> Result<()> {
        let doing = "end what was at work";
        let problem = to_json(problem)?;
        let mut transaction = self.begin().await?;
        for sql in [
            "update task_step set undo = null where task in (select id from task where state in ('running', 'unwinding'))",
            "delete from session",
        ] {
            sqlx::query(sql).execute(&mut *transaction).await.map_err(failed(doing))?;
        }
        sqlx::query(
            "update task set state = 'failed', error = $1, finished_at = $2 where state in ('running', 'unwinding')",
        )
        .bind(problem)
        .bind(Time::now().0)
        .execute(&mut *transaction)
        .await
        .map_err(failed(doing))?;
        transaction.commit().await.map_err(failed(doing))
    }
}
