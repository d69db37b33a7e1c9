//! Whose a database is, and whether it is as good as new.

use super::{Store, failed, parse_uuid};
use crate::Result;
use api::Time;
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

    /// Says which Vmyard this is.
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
}
