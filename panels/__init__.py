"""Where a user works: the sidebar's tab and the preferences."""


def register():
    from . import blend, preferences, seed, sidebar, views

    for part in (preferences, sidebar, seed, blend, views):
        part.register()


def unregister():
    from . import blend, preferences, seed, sidebar, views

    for part in (views, blend, seed, sidebar, preferences):
        part.unregister()
