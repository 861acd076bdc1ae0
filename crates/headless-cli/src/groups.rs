//! `headless groups`: what operators want of consumer groups, in every process of a service.

mod args;
mod change;
mod list;
mod remove;

use anyhow::Result;

use self::args::GroupsCommand;
pub(crate) use self::args::{GroupsArgs, time};
pub(crate) use self::list::table;
use crate::operator::Answer;

/// Does what the arguments say.
pub(crate) async fn run(args: &GroupsArgs) -> Result<Answer> {
    match &args.command {
        GroupsCommand::List(args) => list::run(args).await,
        GroupsCommand::Pause(args) => change::pause(args, true).await,
        GroupsCommand::Resume(args) => change::pause(args, false).await,
        GroupsCommand::Concurrency(args) => change::concurrency(args).await,
        GroupsCommand::Remove(args) => remove::run(args).await,
    }
}
