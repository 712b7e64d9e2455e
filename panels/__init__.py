"""Where a user works: the sidebar's tab and the preferences."""


def register():
    from . import blend, object, preferences, seed, sidebar, views

    for part in (preferences, sidebar, seed, object, blend, views):
        part.register()


def unregister():
    from . import blend, object, preferences, seed, sidebar, views

    for part in (views, blend, object, seed, sidebar, preferences):
        part.unregister()
