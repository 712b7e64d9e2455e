"""Where a user works: the sidebar's tab and the preferences."""


def register():
    from . import preferences, sidebar

    preferences.register()
    sidebar.register()


def unregister():
    from . import preferences, sidebar

    sidebar.unregister()
    preferences.unregister()
