"""Around samples that give options to the Headway of a Quart app: the app can be made so."""

from __future__ import annotations

from quart import Quart

from headway.quart import Headway

app = Quart(__name__)
# the sample

assert isinstance(app.extensions["headway"], Headway)
