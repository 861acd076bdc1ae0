//! Giving a topic another order.

use headless_abstractions::{Error, GroupName, Result, TopicName, TopicOrder};
use sqlx::Row;

use super::declare::{about, count, order, unknown_topic};
use crate::{error::fault, postgres::Shared, wake::Signal};

pub(super) async fn repartition(shared: &Shared, topic: &TopicName, to: TopicOrder) -> Result<TopicOrder> {
    let before = shared
        .guarded("repartition", async {
            let mut session = shared.session().await?;
            let rows = sqlx::query(shared.transport.statements.repartition.get())
                .bind(topic.as_str())
                .bind(count(to))
                .bind(shared.long_wait())
                .fetch_all(&mut *session)
                .await
                .map_err(fault)?;
            session.finish(&shared.statements).await?;
            let mut held = Vec::new();
            for row in &rows {
                let answer: i16 = row.try_get("answer").map_err(fault)?;
                match answer {
                    0 => return order(row.try_get("before").map_err(fault)?),
                    1 => return Err(unknown_topic(topic.as_str())),
                    _ => {
                        let group: &str = row.try_get("grp").map_err(fault)?;
                        let count: i64 = row.try_get("held").map_err(fault)?;
                        held.push((GroupName::parse(group)?, u64::try_from(count).unwrap_or(0)));
                    }
                }
            }
            Err(Error::undrained(topic, &held))
        })
        .await
        .map_err(about(topic))?;
    // Members look for what they hold now.
    shared.wake.notify(Signal::Transport);
    Ok(before)
}
