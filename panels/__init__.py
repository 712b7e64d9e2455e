"""Where a user works: the sidebar's tab and the preferences."""


def register():
    from . import blend, edit, object, preferences, seed, sidebar, views

    for part in (preferences, sidebar, edit, seed, object, blend, views):
        part.register()


def unregister():
    from . import blend, edit, object, preferences, seed, sidebar, views

    for part in (views, blend, object, seed, edit, sidebar, preferences):
        part.unregister()
