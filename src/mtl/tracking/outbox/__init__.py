"""What a run is told while its server is away: calls as data, written down and sent later, once each."""
