"""One association, from its acceptance to its end, in a process of its own (docs/adr/0025).

PS3.8 §9.2 for the acceptor: established (Sta6), then released by the peer (Sta8 to Sta13), or aborted by either side.
Messages come one after another, as the operations window is one (PS3.7 Annex D.3.3.3).
"""

import signal
import struct
from contextlib import suppress
from types import FrameType
from typing import Final

import structlog
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from appliance.clock import monotonic_s
from appliance.intake import command_set as cs
from appliance.intake.command_set import Command, MalformedCommand
from appliance.intake.fragments import P_DATA, RELEASE_RP, Aborted, Fragment, Fragments, Released, Violation
from appliance.intake.negotiation import Agreement, abort
from appliance.intake.storage import NO_SUCH_CLASS, OUT_OF_RESOURCES, SUCCESS, Caller, Means, StorageScp
from appliance.intake.wire import ConnectionLost, Wire
from appliance.spool import Discarded, Entry

UNRECOGNIZED_OPERATION: Final = 0x0211
"""PS3.7 §C.5.18."""

_BY_USER, _BY_PROVIDER = 0, 2
_SLOWEST_BYTES_PER_S = 16_384
"""A message that comes more slowly than this, all in all, holds a place that others need."""

_LONGEST_NOTE_BYTES = 8 << 20
"""Of a data set that is parsed: reports of storage commitment and requests for it."""

_GRACE_S = 5.0
"""After SIGTERM, for the object in hand."""

log = structlog.get_logger()


class _Stopping(Exception):
    """The listener stops."""


class Association:
    """Serves one peer until the association ends.

    Args:
        wire: the connection, just behind the A-ASSOCIATE-RQ.
        agreement: what was negotiated; the answer is not sent yet.
        means: what all associations work with.
        caller: the peer.
    """

    def __init__(self, wire: Wire, agreement: Agreement, means: Means, caller: Caller) -> None:
        self._wire = wire
        self._agreement = agreement
        self._means = means
        self._caller = caller
        self._fragments = Fragments(wire)
        self._scp = StorageScp(means, caller)
        self._stopping = False
        self._began_s = 0.0
        self._message_bytes = 0

    def run(self) -> None:
        """Serve until the end; what was aborted, by whomever, is reported."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGALRM, _give_up)
        try:
            self._wire.send(self._agreement.answer)
            self._serve()
        except Released:
            self._last_words(struct.pack(">BxIxxxx", RELEASE_RP, 4))
            return
        except (Aborted, ConnectionLost):
            pass
        except Violation as violation:
            self._last_words(abort(_BY_PROVIDER, violation.reason))
        except MalformedCommand:
            self._last_words(abort(_BY_USER, 0))
        except _Stopping:
            with suppress(ConnectionLost):
                self._wire.send(abort(_BY_USER, 0))  # there is no time to wait until the peer closes
        finally:
            self._wire.close()
        source, address = self._caller.calling_ae, self._caller.address
        self._means.reports.report("association_aborted", address=address, source_ae=source, stored=self._scp.stored)

    def _serve(self) -> None:
        while not self._stopping:
            context_id, command = self._command()
            if command.field == cs.C_CANCEL_RQ:
                continue
            if command.field & cs.RESPONSE:
                raise MalformedCommand("a response to nothing")
            abstract_syntax, syntax = self._agreement.contexts[context_id]
            self._send(context_id, self._answer(context_id, command, abstract_syntax, syntax))
        raise _Stopping

    def _command(self) -> tuple[int, Command]:
        """The next command set, on an accepted context."""
        encoded, head = b"", self._fragments.head(of_message=True)
        self._began_s, self._message_bytes = monotonic_s(), 0
        context_id = head.context_id
        if context_id not in self._agreement.contexts:
            raise Violation(Violation.INVALID)
        while True:
            self._watch(head, context_id, is_command=True)
            if len(encoded) + head.length > cs.LARGEST_BYTES:
                raise MalformedCommand("a command set that is too long")
            encoded += self._fragments.body(head)
            if head.is_last:
                return context_id, Command.read(encoded)
            head = self._fragments.head(of_message=False)

    def _answer(self, context_id: int, command: Command, abstract_syntax: str, syntax: str) -> bytes:
        """Do what is asked; the command set of the response."""
        if command.field == cs.C_STORE_RQ:
            status = self._store(context_id, command, abstract_syntax, syntax)
            return command.response(status, (cs.AFFECTED_CLASS, cs.AFFECTED_INSTANCE))
        if command.field == cs.C_ECHO_RQ:
            self._skip(context_id, command)
            status = SUCCESS if abstract_syntax == Verification else NO_SUCH_CLASS
            return command.response(status, (cs.AFFECTED_CLASS,))
        is_commitment = abstract_syntax == StorageCommitmentPushModel
        if is_commitment and command.field == cs.N_EVENT_REPORT_RQ:
            status = self._scp.note_report(self._collect(context_id, command), syntax)
            return command.response(status, (cs.AFFECTED_CLASS, cs.AFFECTED_INSTANCE, cs.EVENT_TYPE))
        if is_commitment and command.field == cs.N_ACTION_RQ:
            status = self._scp.note_asked(command, self._collect(context_id, command), syntax)
            command.values[cs.AFFECTED_CLASS] = command.values.get(cs.REQUESTED_CLASS, b"")
            command.values[cs.AFFECTED_INSTANCE] = command.values.get(cs.REQUESTED_INSTANCE, b"")
            return command.response(status, (cs.AFFECTED_CLASS, cs.AFFECTED_INSTANCE, cs.ACTION_TYPE))
        self._skip(context_id, command)
        return command.response(UNRECOGNIZED_OPERATION, (cs.AFFECTED_CLASS,))

    def _store(self, context_id: int, command: Command, abstract_syntax: str, syntax: str) -> int:
        if not command.has_data_set:
            raise MalformedCommand("a C-STORE without a data set")
        entry, status, sentence = self._scp.begin(command, abstract_syntax, syntax)
        self._receive(context_id, entry)
        return self._scp.finish(entry, command, syntax, (status, sentence))

    def _receive(self, context_id: int, entry: Entry) -> None:
        """Receive a data set whole, or leave nothing of it."""
        whole = False
        try:
            while not whole:
                head = self._data_head(context_id, entry.data_set_bytes, self._means.settings.max_object_mb << 20)
                self._fragments.body_into(entry, head)
                whole = head.is_last
        finally:
            if not whole:
                entry.drop()

    def _collect(self, context_id: int, command: Command) -> bytes:
        """A data set that is going to be parsed."""
        encoded, whole = bytearray(), not command.has_data_set
        while not whole:
            head = self._data_head(context_id, len(encoded), _LONGEST_NOTE_BYTES)
            encoded += self._fragments.body(head)
            whole = head.is_last
        return bytes(encoded)

    def _skip(self, context_id: int, command: Command) -> None:
        """Read a data set that nobody wants, as what follows lies behind it."""
        if command.has_data_set:
            self._receive(context_id, Discarded(self._scp.buffer))

    def _data_head(self, context_id: int, come: int, longest: int) -> Fragment:
        head = self._fragments.head(of_message=False)
        self._watch(head, context_id, is_command=False)
        if come + head.length > longest:
            sentence = f"it is longer than the {longest >> 20} MiB that are taken at once (intake.max_object_mb)"
            self._scp.refuse(OUT_OF_RESOURCES, sentence)
            raise MalformedCommand("an object that is too long")
        return head

    def _watch(self, head: Fragment, context_id: int, *, is_command: bool) -> None:
        """Each fragment of a message must belong to it, and all of them come in reasonable time."""
        if head.context_id != context_id or head.is_command != is_command:
            raise Violation(Violation.INVALID)
        self._message_bytes += head.length
        longest_s = self._means.settings.network_timeout_s + self._message_bytes / _SLOWEST_BYTES_PER_S
        if monotonic_s() - self._began_s > longest_s:
            raise Violation(Violation.NOT_SPECIFIED)

    def _send(self, context_id: int, command_set: bytes) -> None:
        """Send a response in one piece.

        Raises:
            MalformedCommand: the peer takes no PDU that is long enough for it; no honest one says so.
        """
        item = len(command_set) + 2
        if 0 < self._agreement.peer_max_bytes < item + 4:
            raise MalformedCommand("the peer's maximum length leaves no room for an answer")
        self._wire.send(struct.pack(">BxIIBB", P_DATA, item + 4, item, context_id, 3) + command_set)

    def _last_words(self, pdu: bytes) -> None:
        with suppress(ConnectionLost, _Stopping):
            self._wire.send(pdu)
            self._wire.finish()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        """At SIGTERM: leave at once between messages, else after the one in hand."""
        if self._fragments.waiting:
            raise _Stopping
        self._stopping = True
        signal.setitimer(signal.ITIMER_REAL, _GRACE_S)


def _give_up(_number: int, _frame: FrameType | None) -> None:
    raise _Stopping
