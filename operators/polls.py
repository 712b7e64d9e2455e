"""What operators need before they can run, and the sentence that says what is missing.

For poll(): each takes the operator's class, and returns whether it is met.
"""

from bpy.props import StringProperty

from . import edits, session
from .build import head


def idle(cls, sentence="Another job is still running"):
    """No job runs."""
    if session.running() is not None:
        cls.poll_message_set(sentence)
        return False
    return True


def has_head(cls, context):
    """There is a head to work on."""
    if head.active(context) is None:
        cls.poll_message_set("Select a head that Triplane has made")
        return False
    return True


def in_object_mode(cls, context):
    """Nothing is being edited."""
    if context.mode != "OBJECT":
        cls.poll_message_set("Leave the editing mode first")
        return False
    return True


def editable(cls, context):
    """The active head can be edited along directions."""
    reason = edits.refusal(head.active(context))
    if reason:
        cls.poll_message_set(reason)
        return False
    return in_object_mode(cls, context)


class OfSliders:
    """Mix-in of operators on one slider of the active head, or on all."""

    direction: StringProperty(
        name="Direction", description="Which one; empty: all", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context):
        return has_head(cls, context) and editable(cls, context)
