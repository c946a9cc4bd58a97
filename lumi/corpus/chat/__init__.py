"""Conversations: where they come from (``chat=…``), and the checked folders that they become."""

from lumi.corpus.chat.conversation import Conversation, ConversationSource, build_chat, read_chat
from lumi.corpus.chat.files import ChatFiles
from lumi.corpus.chat.pydocs import PydocsChat
from lumi.corpus.chat.tasks import Tasks
from lumi.corpus.chat.tree import ChatTree
from lumi.corpus.chat.world import WorldChat

__all__ = [
    "ChatFiles",
    "ChatTree",
    "Conversation",
    "ConversationSource",
    "PydocsChat",
    "Tasks",
    "WorldChat",
    "build_chat",
    "read_chat",
]
