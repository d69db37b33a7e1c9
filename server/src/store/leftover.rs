//! Images that are to be deleted, once nothing stands on them.

use super::{Image, Store, failed, snapshot::read_image};
use crate::Result;
use sqlx::{Any, Transaction};

impl Store {
    /// The images on a node that are to be deleted.
    pub async fn leftovers(&self, node: &str) -> Result<Vec<Image>> {
        let rows = sqlx::query("select pool, file, path from leftover where node = $1").bind(node);
        let rows = rows.fetch_all(&self.pool).await.map_err(failed("read what is to be deleted"))?;
        rows.iter().map(read_image).collect()
    }

    /// Forgets an image that was deleted.
    pub async fn forget_leftover(&self, node: &str, image: &Image) -> Result<()> {
        let mut transaction = self.begin().await?;
        let query = sqlx::query("delete from leftover where node = $1 and path = $2").bind(node).bind(&image.path);
        query.execute(&mut *transaction).await.map_err(failed("forget what was deleted"))?;
        let query = sqlx::query("delete from made where pool = $1 and file = $2");
        let query = query.bind(image.pool.to_string()).bind(&image.file);
        query.execute(&mut *transaction).await.map_err(failed("forget what was deleted"))?;
        self.commit(transaction, "forget what was deleted").await
    }
}

/// Notes that an image is to be deleted.
pub(super) async fn leave(transaction: &mut Transaction<'_, Any>, node: &str, image: &Image) -> Result<()> {
    sqlx::query(
        "insert into leftover (node, pool, file, path) values ($1, $2, $3, $4) on conflict (node, pool, file) do nothing",
    )
    .bind(node)
    .bind(image.pool.to_string())
    .bind(&image.file)
    .bind(&image.path)
    .execute(&mut **transaction)
    .await
    .map(|_| ())
    .map_err(failed("note what is to be deleted"))
}
