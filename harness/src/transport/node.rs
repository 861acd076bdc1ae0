//! What cases do with a node, in their words.

use headless_abstractions::{
    GroupSpec, Message, Partitions, Sent, Subscription, TopicName, TopicOrder, TopicSpec, Topology,
};

use super::member::Member;
use crate::{
    case::{CaseResult, ensure_eq},
    cx::{Cx, group},
    fixture::{Fixture, TransportFixture, TransportNode},
};

/// An unordered topic.
pub(super) fn unordered(topic: &TopicName) -> TopicSpec {
    TopicSpec::new(topic.clone(), TopicOrder::Unordered)
}

/// An ordered topic of this many partitions.
pub(super) fn ordered(topic: &TopicName, partitions: u16) -> CaseResult<TopicSpec> {
    Ok(TopicSpec::new(
        topic.clone(),
        TopicOrder::Partitioned(Partitions::new(partitions)?),
    ))
}

/// A topic with these groups.
pub(super) fn topology(topic: TopicSpec, groups: &[&str]) -> Topology {
    let name = topic.name.clone();
    groups
        .iter()
        .fold(Topology::new().with_topic(topic), |topology, name_of_group| {
            topology.with_group(GroupSpec::new(group(name_of_group), name.clone()))
        })
}

impl TransportNode {
    /// Makes a topic and its groups.
    pub(super) async fn declare(&self, topic: TopicSpec, groups: &[&str]) -> CaseResult {
        Ok(self.driver.declare(&topology(topic, groups)).await?)
    }

    /// Sends a batch, each message of which must be accepted.
    pub(super) async fn send(&self, batch: &[Message]) -> CaseResult {
        let answers = self.driver.send(batch).await;
        ensure_eq!(answers.len(), batch.len(), "answers to a batch");
        for answer in answers {
            ensure_eq!(answer?, Sent::Accepted, "what became of a message");
        }
        Ok(())
    }

    /// Joins a group with the defaults.
    pub(super) async fn join<F: Fixture>(
        &self,
        cx: &Cx<F>,
        name: &str,
        topic: &TopicName,
    ) -> CaseResult<Member> {
        self.join_as(cx, Subscription::new(group(name), topic.clone(), cx.owner()))
            .await
    }

    /// Joins a group with the short visibility time whose end cases wait for.
    pub(super) async fn join_briefly<F: Fixture>(
        &self,
        cx: &Cx<F>,
        name: &str,
        topic: &TopicName,
    ) -> CaseResult<Member> {
        let subscription = Subscription::new(group(name), topic.clone(), cx.owner());
        self.join_as(cx, subscription.with_visibility(cx.lease())).await
    }

    /// Joins as this subscription says.
    pub(super) async fn join_as<F: Fixture>(&self, cx: &Cx<F>, to: Subscription) -> CaseResult<Member> {
        Ok(Member::new(cx, self.driver.subscribe(&to).await?))
    }

    /// How many messages wait for the group or are unsettled.
    pub(super) async fn lag(&self, name: &str) -> CaseResult<u64> {
        Ok(self.driver.lag(&group(name)).await?)
    }
}

impl<F: TransportFixture> Cx<F> {
    /// A node on which an unordered topic has these groups.
    pub(super) async fn node_with(&self, topic: &TopicName, groups: &[&str]) -> CaseResult<TransportNode> {
        let node = self.node().await?;
        node.declare(unordered(topic), groups).await?;
        Ok(node)
    }

    /// A node on which an ordered topic of this many partitions has these groups.
    pub(super) async fn ordered_node_with(
        &self,
        topic: &TopicName,
        partitions: u16,
        groups: &[&str],
    ) -> CaseResult<TransportNode> {
        let node = self.node().await?;
        node.declare(ordered(topic, partitions)?, groups).await?;
        Ok(node)
    }

    /// Messages with the bodies `0..count`.
    pub(super) fn messages(&self, topic: &TopicName, count: usize) -> Vec<Message> {
        (0..count).map(|n| self.message(topic, n)).collect()
    }
}
